use url::Url;

/// A database address for people: without user, password and parameters.
#[must_use]
pub fn redacted(address: &str) -> String {
    if misplaced(address) {
        return "(an address with an @, /, ? or # out of place)".to_owned();
    }
    match Url::parse(address) {
        Ok(url) if url.has_host() => {
            let host = url.host_str().unwrap_or_default();
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{host}{port}{}", url.scheme(), url.path())
        }
        // libpq's keyword form can hold a password anywhere in it.
        _ if address.contains('=') || address.contains('@') => {
            "(keyword connection string)".to_owned()
        }
        _ => address.to_owned(),
    }
}

/// Whether an `@`, `/`, `?` or `#` that belongs to a password ends it early: then a part of the password
/// is taken for a port, a name or a parameter, and shown as one.
pub(crate) fn misplaced(address: &str) -> bool {
    let Some((_, rest)) = address.split_once("://") else { return false };
    let (rest, fragment) = rest.split_once('#').map_or((rest, false), |(rest, _)| (rest, true));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name_with_at =
        query.split('&').any(|pair| pair.split('=').next().is_some_and(|name| name.contains('@')));
    fragment || name_with_at || path.contains('@') || authority.matches('@').count() > 1
}

/// Takes the address and its password out of a client library's message: libpq quotes the whole
/// address when it cannot parse it.
pub(crate) fn scrubbed(message: &str, address: &str) -> String {
    let mut text = message.replace(address, &redacted(address));
    let secrets = [password_of_url(address), password_of_keywords(address)];
    for secret in secrets.into_iter().flatten().filter(|secret| !secret.is_empty()) {
        text = text.replace(&secret, "***");
    }
    text.trim_end().to_owned()
}

fn password_of_url(address: &str) -> Option<String> {
    // By hand and not through a parser: this matters most for addresses that do not parse.
    let rest = address.split_once("://")?.1;
    let (credentials, _) = rest.rsplit_once('@')?;
    Some(credentials.split_once(':')?.1.to_owned())
}

fn password_of_keywords(address: &str) -> Option<String> {
    let rest = address.split_once("password=")?.1;
    let quoted = rest.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    Some(match quoted {
        Some((secret, _)) => secret.to_owned(),
        None => rest.split([' ', '&']).next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_address_shows_its_password() {
        for address in [
            "postgres://user:canary@db.example:5432/shop",
            "postgres://user:canary@[::1]:5432/shop?sslmode=require",
            "postgres://user:canary@db.example:notaport/shop",
            "postgres://db.example/shop?user=u&password=canary",
            "host=db.example user=u password=canary dbname=shop",
            "host=db.example user=u password='canary' dbname=shop",
        ] {
            assert!(!redacted(address).contains("canary"), "{}", redacted(address));
            let message = scrubbed(&format!("cannot parse \"{address}\" near canary"), address);
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn host_port_and_name_stay_readable() {
        assert_eq!(redacted("postgres://u:p@db:5433/shop"), "postgres://db:5433/shop");
        assert_eq!(redacted("var/shop.db"), "var/shop.db");
    }
}
