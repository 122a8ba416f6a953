use std::io::{BufRead, BufReader};

use super::*;

const PREFIX: &str = "matcher-lab";

fn namespaces(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(NAMESPACES).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| owner(name, prefix).is_some())
        .collect()
}

#[test]
fn a_laboratory_leaves_nothing_behind() {
    if let Some(reason) = Lab::obstacle() {
        println!("skipped: {reason}");
        return;
    }
    let lab = Lab::new(PREFIX).unwrap();
    lab.veth("access0", "acc-peer").unwrap();
    let paths = [lab.edge().path(), lab.world().path()];
    assert!(paths.iter().all(|path| path.exists()));
    let mut child = lab.edge().command("sleep").arg("600").spawn().unwrap();
    drop(lab);
    assert!(paths.iter().all(|path| !path.exists()));
    assert!(!child.wait().unwrap().success(), "the child was ended");
}

#[test]
fn commands_and_closures_run_inside_and_see_only_the_inside() {
    if let Some(reason) = Lab::obstacle() {
        println!("skipped: {reason}");
        return;
    }
    let lab = Lab::new(PREFIX).unwrap();
    lab.veth("access0", "acc-peer").unwrap();
    let inside = lab.edge().command("ip").args(["-o", "link"]).output();
    let inside = String::from_utf8(inside.unwrap().stdout).unwrap();
    assert_eq!(inside.lines().count(), 2, "{inside}");
    assert!(inside.contains("access0@"), "{inside}");
    let own = || fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_ne!(lab.edge().run(own).unwrap(), own());
    assert_ne!(lab.edge().run(own).unwrap(), lab.world().run(own).unwrap());
    // Mounts are the host's: the BPF file system stays in sight.
    let mounts = lab.edge().command("cat").arg("/proc/self/mounts").output();
    assert_eq!(
        mounts.unwrap().stdout,
        fs::read("/proc/self/mounts").unwrap()
    );
}

#[test]
fn the_kernel_itself_sends_nothing() {
    if let Some(reason) = Lab::obstacle() {
        println!("skipped: {reason}");
        return;
    }
    let lab = Lab::new(PREFIX).unwrap();
    lab.veth("access0", "acc-peer").unwrap();
    thread::sleep(Duration::from_millis(1500));
    for (namespace, interface) in [(lab.edge(), "access0"), (lab.world(), "acc-peer")] {
        assert_eq!(namespace.counters(interface).unwrap(), Counters::default());
    }
}

#[test]
fn the_error_of_a_command_says_which_and_why() {
    if let Some(reason) = Lab::obstacle() {
        println!("skipped: {reason}");
        return;
    }
    let lab = Lab::new(PREFIX).unwrap();
    let error = lab
        .edge()
        .ip(&["link", "show", "dev", "nosuch"])
        .unwrap_err();
    let expected = format!(
        "`ip -n {} link show dev nosuch` failed: Device \"nosuch\" does not exist.",
        lab.edge().name()
    );
    assert_eq!(error.to_string(), expected);
}

/// The test starts itself again as the process that is to be ended.
#[test]
fn a_signal_removes_the_laboratory_and_a_kill_leaves_it_to_the_sweep() {
    const CHILD: &str = "MATCHER_LAB_CHILD";
    const SIGNALS: &str = "matcher-labsig";
    if let Some(reason) = Lab::obstacle() {
        println!("skipped: {reason}");
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        let lab = Lab::new(SIGNALS).unwrap();
        lab.veth("access0", "acc-peer").unwrap();
        println!("\nready");
        thread::sleep(Duration::from_secs(60));
        return;
    }
    for (signal, left) in [(Signal::INT, 0), (Signal::TERM, 0), (Signal::KILL, 2)] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "lab::tests::a_signal_removes_the_laboratory_and_a_kill_leaves_it_to_the_sweep",
            ])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.map(|line| line.unwrap()).any(|line| line == "ready"),
            "the child made no laboratory"
        );
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        child.wait().unwrap();
        assert_eq!(namespaces(SIGNALS).len(), left, "after {signal:?}");
    }
    let alive = Lab::new(SIGNALS).unwrap();
    let mut swept = Lab::sweep_stale(SIGNALS).unwrap();
    swept.sort();
    assert_eq!(swept.len(), 2, "{swept:?}");
    assert!(swept[0].ends_with("-edge") && swept[1].ends_with("-world"));
    let mut rest = namespaces(SIGNALS);
    rest.sort();
    assert_eq!(rest, [alive.edge().name(), alive.world().name()]);
}

#[test]
fn only_names_of_laboratories_have_an_owner() {
    assert_eq!(owner("m-t-17-0-edge", "m-t"), Some(17));
    assert_eq!(owner("m-t-17-0-world", "m-t"), Some(17));
    for other in [
        "m-t-17-0-else",
        "m-t-17-edge",
        "m-t-x-0-edge",
        "m-17-0-edge",
        "m-t",
    ] {
        assert_eq!(owner(other, "m-t"), None, "{other}");
    }
}
