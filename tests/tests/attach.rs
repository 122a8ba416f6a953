//! Attaching and detaching, on interfaces of every kind.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use matcher_tests::{
    lab::Lab,
    matcher::{Deployment, Ended, beacon, subscriber, wait_until},
    skip::skip,
    wire::Sender,
};

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

/// What `ip` says of the program on an interface.
fn carried(deployment: &Deployment, interface: &str) -> Result<&'static str> {
    let shown = deployment
        .lab()
        .edge()
        .ip(&["link", "show", "dev", interface])?;
    Ok(["xdpgeneric", "xdp"]
        .into_iter()
        .find(|word| shown.contains(word))
        .unwrap_or("none"))
}

#[test]
fn native_mode_on_a_veth_sees_packets_and_leaves_nothing_behind() -> Result<()> {
    if is_skipped("native_mode_on_a_veth_sees_packets_and_leaves_nothing_behind") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let attached = deployment.matcher(["attach"])?.succeeded();
    assert_eq!(
        attached.out,
        "access0: attached in native mode, role access, sources validated\n\
         core0: attached in native mode, role core\n"
    );
    assert_eq!(attached.err, "");
    assert_eq!(carried(&deployment, "access0")?, "xdp");
    deployment
        .access()?
        .send_all([beacon(subscriber(7), 1024)], 1000)?;
    wait_until("the packet is counted", || {
        Ok(deployment.counter("no-match")? == 1)
    })?;

    let detached = deployment.matcher(["detach"])?.succeeded();
    assert_eq!(detached.out, "access0: detached\ncore0: detached\n");
    assert_eq!(carried(&deployment, "access0")?, "none");
    assert_eq!(carried(&deployment, "core0")?, "none");
    assert!(!deployment.pins().directory().exists());
    assert!(!deployment.folder().join("run/instance.json").exists());
    deployment.matcher(["status"])?.failed(1);
    Ok(())
}

#[test]
fn generic_mode_is_taken_when_asked_for_and_names_may_have_dots() -> Result<()> {
    if is_skipped("generic_mode_is_taken_when_asked_for_and_names_may_have_dots") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.lab().veth("eth0.100", "vlan-peer")?;
    let attached = deployment
        .matcher(["attach", "--mode", "generic", "--iface", "eth0.100:access"])?
        .succeeded();
    assert_eq!(
        attached.out,
        "eth0.100: attached in generic mode, role access, sources validated\n"
    );
    assert_eq!(carried(&deployment, "eth0.100")?, "xdpgeneric");
    deployment.matcher(["load"])?.succeeded();
    Sender::open(deployment.lab().world(), "vlan-peer")?
        .send_all([beacon(subscriber(7), 1024)], 1000)?;
    wait_until("a hit", || Ok(deployment.counter("delivered")? == 1))?;
    let interfaces: Vec<_> = deployment
        .hits()?
        .iter()
        .map(|hit| hit["interface"].clone())
        .collect();
    assert_eq!(interfaces, ["eth0.100"]);
    let detached = deployment.matcher(["detach"])?.succeeded();
    assert_eq!(detached.out, "eth0.100: detached\n");
    Ok(())
}

/// A bridge has no native XDP at all.
#[test]
fn where_native_mode_is_refused_generic_mode_is_taken_with_a_warning() -> Result<()> {
    if is_skipped("where_native_mode_is_refused_generic_mode_is_taken_with_a_warning") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let edge = deployment.lab().edge();
    edge.ip(&["link", "add", "br0", "type", "bridge"])?;
    let native = deployment
        .matcher(["attach", "--iface", "br0:both", "--mode", "native"])?
        .failed(3);
    insta::assert_snapshot!("native_refused", native.err);
    assert_eq!(carried(&deployment, "br0")?, "none");
    assert!(!deployment.pins().directory().exists());

    let auto = deployment
        .matcher(["attach", "--iface", "br0:both"])?
        .succeeded();
    insta::assert_snapshot!("fallen_back", auto.err + &auto.out);
    assert_eq!(carried(&deployment, "br0")?, "xdpgeneric");
    Ok(())
}

#[test]
fn two_instances_work_side_by_side_and_leave_each_other_alone() -> Result<()> {
    if is_skipped("two_instances_work_side_by_side_and_leave_each_other_alone") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.matcher(["attach"])?.succeeded();
    deployment.lab().veth("access1", "acc1-peer")?;
    let other = second_instance(&deployment, "access0")?;
    other(&["attach", "--iface", "access1:access"])?.succeeded();
    for mode in ["auto", "native", "generic"] {
        let refused = other(&["attach", "--mode", mode])?.failed(1);
        assert_eq!(
            refused.err,
            "error: interface access0 already carries an XDP program that is not ours; it is left \
             alone. See `ip link show dev access0`, and detach it first if it is not needed\n"
        );
    }
    // Each sees its own interface, and works on when the other has gone.
    deployment.matcher(["load"])?.succeeded();
    other(&["load"])?.succeeded();
    let access = deployment.access()?;
    access.send_all([beacon(subscriber(7), 1024)], 1000)?;
    assert_eq!(other(&["tail", "--once", "--json"])?.succeeded().out, "");
    assert_eq!(deployment.hits()?.len(), 1);
    assert_eq!(other(&["detach"])?.succeeded().out, "access1: detached\n");
    assert_eq!(carried(&deployment, "access0")?, "xdp");
    access.send_all([beacon(subscriber(7), 1024)], 1000)?;
    assert_eq!(deployment.hits()?.len(), 1);
    Ok(())
}

/// Commands of an instance with folders and pins of its own in the same
/// namespace, on one access interface.
fn second_instance<'a>(
    deployment: &'a Deployment,
    interface: &str,
) -> Result<impl Fn(&[&str]) -> Result<Ended> + 'a> {
    let folder = deployment.folder().join("second");
    fs::create_dir(&folder)?;
    let pins = format!("{}-second", deployment.pins().directory().display());
    let config = format!(
        "[paths]\nrun_dir = \"run\"\npin_dir = \"{pins}\"\nstate_dir = \"state\"\n\
         [[interface]]\nname = \"{interface}\"\nrole = \"access\"\n\
         [subscribers]\nprefixes = [\"203.0.113.0/24\"]\n\
         [consent]\nmodel = \"opt-out\"\nnotice_since = 2026-01-01T00:00:00Z\nno_list = true\n\
         [[feed]]\nname = \"cc\"\nformat = \"plain\"\npath = \"../cc.txt\"\n"
    );
    let file = folder.join("matcher.toml");
    fs::write(&file, config)?;
    let unpin = Unpin(matcher_user::kernel::pins::Pins::at(Path::new(&pins)));
    Ok(move |arguments: &[&str]| {
        let _last = &unpin;
        let mut command = vec!["-c", file.to_str().unwrap_or_default()];
        command.extend(arguments);
        Ok(Ended::from(
            deployment
                .lab()
                .edge()
                .command(matcher_tests::matcher::binary()?)
                .args(command)
                .output()?,
        ))
    })
}

struct Unpin(matcher_user::kernel::pins::Pins);

impl Drop for Unpin {
    fn drop(&mut self) {
        // Nothing is there when the test has detached.
        let _ = self.0.remove_all();
    }
}

#[test]
fn attaching_again_changes_the_role_and_keeps_what_is_loaded() -> Result<()> {
    if is_skipped("attaching_again_changes_the_role_and_keeps_what_is_loaded") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    let again = deployment.matcher(["attach"])?.succeeded();
    assert_eq!(
        again.out,
        "access0: was attached already; its role is access now\n\
         core0: was attached already; its role is core now\n"
    );
    deployment
        .matcher(["attach", "--iface", "core0:both"])?
        .succeeded();
    let status = deployment.status()?;
    assert_eq!(status["generation"], 1);
    let shown: Vec<_> = status["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|interface| (&interface["name"], &interface["role"], &interface["mode"]))
        .map(|(name, role, mode)| format!("{name} {role} {mode}"))
        .collect();
    assert_eq!(
        shown,
        [
            r#""access0" "access" "native""#,
            r#""core0" "both" "native""#
        ]
    );
    Ok(())
}

#[test]
fn when_one_interface_is_missing_none_is_attached() -> Result<()> {
    if is_skipped("when_one_interface_is_missing_none_is_attached") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let refused = deployment
        .matcher(["attach", "--iface", "access0", "--iface", "eth9:core"])?
        .failed(1);
    assert_eq!(
        refused.err,
        "error: there is no interface eth9 in this network namespace (see `ip link`)\n"
    );
    assert_eq!(refused.out, "");
    assert_eq!(carried(&deployment, "access0")?, "none");
    assert!(!deployment.pins().directory().exists());
    Ok(())
}

/// As above, but found out only on the way: the second is there and refuses.
#[test]
fn when_one_interface_refuses_those_before_it_are_detached_again() -> Result<()> {
    if is_skipped("when_one_interface_refuses_those_before_it_are_detached_again") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let other = second_instance(&deployment, "core0")?;
    other(&["attach"])?.succeeded();
    let refused = deployment.matcher(["attach"])?.failed(1);
    assert!(
        refused.err.contains("core0 already carries"),
        "{}",
        refused.err
    );
    assert_eq!(carried(&deployment, "access0")?, "none");
    assert!(!deployment.pins().directory().exists());
    // Of an instance that is attached already, the rest stays.
    deployment
        .matcher(["attach", "--iface", "access0"])?
        .succeeded();
    deployment.matcher(["attach"])?.failed(1);
    assert_eq!(carried(&deployment, "access0")?, "xdp");
    let status = deployment.status()?;
    assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(1));
    Ok(())
}

/// `ip netns exec` gives the command a mount namespace with a fresh /sys, which
/// hides the BPF file system and ends with the command.
#[test]
fn what_is_attached_under_ip_netns_exec_stays() -> Result<()> {
    if is_skipped("what_is_attached_under_ip_netns_exec_stays") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    // Makes sure that one is mounted where everybody sees it.
    deployment.matcher(["attach"])?.succeeded();
    deployment.matcher(["detach"])?.succeeded();
    let name = deployment.lab().edge().name();
    let ended = |command: &str| -> Result<Ended> {
        let output = Command::new("ip")
            .args(["netns", "exec", name])
            .arg(matcher_tests::matcher::binary()?)
            .arg("-c")
            .arg(deployment.folder().join("matcher.toml"))
            .arg(command)
            .output()?;
        Ok(output.into())
    };
    ended("attach")?.succeeded();
    assert_eq!(carried(&deployment, "access0")?, "xdp");
    ended("load")?.succeeded();
    assert_eq!(deployment.status()?["generation"], 1);
    ended("detach")?.succeeded();
    assert_eq!(carried(&deployment, "access0")?, "none");
    Ok(())
}
