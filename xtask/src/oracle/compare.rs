//! One packet, seen by both.

use std::fmt;

use serde::Deserialize;

use super::seen::{Layer, Ours, Theirs};

/// One thing that both say something else of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// What is different, such as `layer 1 source port`; layers count from 1, outermost first.
    pub field: String,
    /// What tshark says of it.
    pub tshark: String,
    /// What matcher says of it.
    pub matcher: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: tshark {}, matcher {}",
            self.field, self.tshark, self.matcher
        )
    }
}

const NONE: &str = "none";

/// What matcher leaves unread because there is no IP: then tshark must not see IP there either.
const NOT_IP: &str = "not-ip";

/// Everything that differs. Of a packet that matcher did not read to its end, the layers that it
/// did read must be tshark's first ones.
pub fn differences(ours: &Ours, theirs: &Theirs) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |field: String, tshark: String, matcher: String| {
        if tshark != matcher {
            found.push(Difference {
                field,
                tshark,
                matcher,
            });
        }
    };
    let whole = |layer: Option<&Layer>| layer.map_or(NONE.to_owned(), Layer::to_string);
    let compared = match ours.unparsed {
        None => ours.layers.len().max(theirs.layers.len()),
        Some(_) => ours.layers.len(),
    };
    for index in 0..compared {
        let number = index + 1;
        let (Some(our), Some(their)) = (ours.layers.get(index), theirs.layers.get(index)) else {
            differ(
                format!("layer {number}"),
                whole(theirs.layers.get(index)),
                whole(ours.layers.get(index)),
            );
            continue;
        };
        for (name, value) in FIELDS {
            differ(format!("layer {number} {name}"), value(their), value(our));
        }
    }
    // Tags in front of something that is not IP are nobody's concern.
    if !ours.layers.is_empty() && !theirs.layers.is_empty() {
        differ(
            "VLAN tags".to_owned(),
            theirs.vlan_tags.to_string(),
            ours.vlan_tags.to_string(),
        );
    }
    let plain_ip = theirs.layers.first().filter(|_| theirs.below.is_empty());
    let no_ip = ours.layers.is_empty() && ours.unparsed.as_deref() == Some(NOT_IP);
    if no_ip && plain_ip.is_some() {
        differ("layer 1".to_owned(), whole(plain_ip), NOT_IP.to_owned());
    }
    found
}

/// A field of a layer, and how it is shown.
type Field = (&'static str, fn(&Layer) -> String);

const FIELDS: [Field; 6] = [
    ("source", |layer| layer.source.to_string()),
    ("destination", |layer| layer.destination.to_string()),
    ("protocol", |layer| layer.protocol.to_string()),
    ("fragment offset", |layer| layer.fragment_offset.to_string()),
    ("source port", |layer| port(layer.source_port)),
    ("destination port", |layer| port(layer.destination_port)),
];

fn port(port: Option<u16>) -> String {
    port.map_or(NONE.to_owned(), |port| port.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(source: &str, port: Option<u16>) -> Layer {
        Layer {
            source: source.parse().unwrap(),
            destination: "192.0.2.9".parse().unwrap(),
            protocol: 17,
            fragment_offset: 0,
            source_port: port,
            destination_port: port,
        }
    }

    fn ours(layers: &[Layer], unparsed: Option<&str>) -> Ours {
        Ours {
            packet: 1,
            layers: layers.to_vec(),
            vlan_tags: 0,
            unparsed: unparsed.map(str::to_owned),
        }
    }

    fn theirs(layers: &[Layer]) -> Theirs {
        Theirs {
            layers: layers.to_vec(),
            ..Theirs::default()
        }
    }

    fn shown(ours: &Ours, theirs: &Theirs) -> Vec<String> {
        let found = differences(ours, theirs);
        found.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn the_same_on_both_sides_is_agreement() {
        let layers = [layer("192.0.2.1", Some(7)), layer("192.0.2.2", None)];
        assert_eq!(shown(&ours(&layers, None), &theirs(&layers)), [""; 0]);
        assert_eq!(shown(&ours(&[], Some("llc")), &theirs(&[])), [""; 0]);
    }

    #[test]
    fn each_field_and_each_missing_layer_is_a_difference() {
        let (a, b) = (layer("192.0.2.1", Some(7)), layer("192.0.2.2", None));
        assert_eq!(
            shown(&ours(std::slice::from_ref(&b), None), &theirs(&[a, b])),
            [
                "layer 1 source: tshark 192.0.2.1, matcher 192.0.2.2",
                "layer 1 source port: tshark 7, matcher none",
                "layer 1 destination port: tshark 7, matcher none",
                "layer 2: tshark 192.0.2.2 > 192.0.2.9 protocol 17, matcher none",
            ]
        );
    }

    #[test]
    fn of_a_packet_left_unread_the_layers_read_must_be_the_first_ones() {
        let (a, b) = (layer("192.0.2.1", Some(7)), layer("192.0.2.2", None));
        let both = theirs(&[a.clone(), b.clone()]);
        assert_eq!(shown(&ours(&[a], Some("tunnel")), &both), [""; 0]);
        assert_eq!(
            shown(&ours(std::slice::from_ref(&b), Some("tunnel")), &both).len(),
            3
        );
        assert_eq!(
            shown(&ours(&[b], Some("tunnel")), &theirs(&[])),
            ["layer 1: tshark none, matcher 192.0.2.2 > 192.0.2.9 protocol 17"]
        );
    }

    #[test]
    fn ip_that_is_taken_for_something_else_is_a_difference() {
        let mut seen = theirs(&[layer("192.0.2.1", None)]);
        let expected = "layer 1: tshark 192.0.2.1 > 192.0.2.9 protocol 17, matcher not-ip";
        assert_eq!(shown(&ours(&[], Some("not-ip")), &seen), [expected]);
        // Inside a tunnel (ARP in VXLAN) it is not.
        let outer = seen.layers.clone();
        assert_eq!(shown(&ours(&outer, Some("not-ip")), &seen), [""; 0]);
        // Behind something that matcher does not read, it is not.
        seen.below.push("macsec".to_owned());
        assert_eq!(shown(&ours(&[], Some("not-ip")), &seen), [""; 0]);
    }
}
