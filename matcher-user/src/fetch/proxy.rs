//! Which proxy an address is asked through: the usual variables, pure.

use crate::feeds::FeedUrl;

/// The variable that names the proxy for this address, and what it says.
/// `read` gives the value of a variable of the environment.
///
/// As curl does it: `https_proxy` or `http_proxy` by the scheme of the
/// address, else `all_proxy`; `no_proxy` lists hosts that are asked directly.
/// Capitals count as well, except for `HTTP_PROXY`, which a client's header
/// `Proxy:` can set where programs are run by a web server (httpoxy).
pub(super) fn proxy_for(
    url: &FeedUrl,
    read: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
    let by_scheme: &[&'static str] = if url.is_tls() {
        &["https_proxy", "HTTPS_PROXY"]
    } else {
        &["http_proxy"]
    };
    let exempt = read("no_proxy").or_else(|| read("NO_PROXY"));
    if exempt.is_some_and(|list| is_exempt(url.host(), &list)) {
        return None;
    }
    by_scheme
        .iter()
        .chain(&["all_proxy", "ALL_PROXY"])
        .find_map(|name| read(name).map(|value| (*name, value)))
}

fn is_exempt(host: &str, list: &str) -> bool {
    let bare = |host: &str| host.trim_matches(['[', ']']).to_ascii_lowercase();
    let host = bare(host);
    list.split([',', ' '])
        .map(|item| bare(item.trim()))
        .filter(|item| !item.is_empty())
        .any(|item| {
            if item == "*" {
                return true;
            }
            if let (Ok(prefix), Ok(ip)) = (
                item.parse::<ipnet::IpNet>(),
                host.parse::<std::net::IpAddr>(),
            ) {
                return prefix.contains(&ip);
            }
            let item = item.trim_start_matches("*.").trim_start_matches('.');
            host == item
                || host
                    .strip_suffix(item)
                    .is_some_and(|rest| rest.ends_with('.'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, variables: &[(&str, &str)]) -> Option<(&'static str, String)> {
        proxy_for(&url.parse().unwrap(), |name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_scheme_chooses_the_variable() {
        let all = [
            ("https_proxy", "http://p1:3128"),
            ("http_proxy", "http://p2:3128"),
            ("ALL_PROXY", "http://p3:3128"),
        ];
        let of = |url| chosen(url, &all).unwrap().1;
        assert_eq!(of("https://example.org/"), "http://p1:3128");
        assert_eq!(of("http://example.org/"), "http://p2:3128");
        assert_eq!(
            chosen("https://example.org/", &all[2..]),
            Some(("ALL_PROXY", "http://p3:3128".into()))
        );
        assert_eq!(
            chosen("https://example.org/", &[("https_proxy", " ")]),
            None
        );
        assert_eq!(
            chosen("http://example.org/", &[("HTTP_PROXY", "http://p")]),
            None
        );
    }

    #[test]
    fn hosts_of_no_proxy_are_asked_directly() {
        for (list, url) in [
            ("*", "https://example.org/"),
            ("localhost, example.org", "https://example.org:8443/"),
            (".example.org", "https://a.example.org/"),
            ("example.org", "https://a.example.org/"),
            ("192.0.2.0/24", "https://192.0.2.7/"),
            ("::1", "http://[::1]:80/"),
        ] {
            let variables = [("all_proxy", "http://p"), ("NO_PROXY", list)];
            assert_eq!(chosen(url, &variables), None, "{list} {url}");
        }
        for (list, url) in [
            ("example.org", "https://badexample.org/"),
            ("192.0.2.0/24", "https://198.51.100.1/"),
            ("", "https://example.org/"),
        ] {
            let variables = [("all_proxy", "http://p"), ("no_proxy", list)];
            assert!(chosen(url, &variables).is_some(), "{list} {url}");
        }
    }
}
