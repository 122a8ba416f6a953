//! What the tests, the demo and the benchmark share: packets, captures, traffic
//! with known answers, and a laboratory of network namespaces.

pub mod bench;
pub mod cleanup;
pub mod demo;
pub mod edge;
pub mod feed_server;
pub mod fetching;
pub mod frames;
pub mod kernel;
pub mod lab;
pub mod matcher;
pub mod model;
pub mod packets;
pub mod pcap;
pub mod skip;
pub mod traffic;
pub mod wire;
