//! What the tests, the demo and the benchmark share: packets, captures, traffic
//! with known answers, and a laboratory of network namespaces.

pub mod cleanup;
pub mod demo;
pub mod frames;
pub mod lab;
pub mod pcap;
pub mod traffic;
pub mod wire;
