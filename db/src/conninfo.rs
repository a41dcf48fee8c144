use url::Url;

use crate::OpenError;
use crate::address::{misplaced, redacted, scrubbed};

/// An address of PostgreSQL in one of libpq's two forms, with what it sets.
pub(crate) struct Conninfo {
    form: Form,
    set: Vec<(String, String)>,
}

enum Form {
    Url(Url),
    Keywords(String),
}

impl Conninfo {
    /// Reads an address.
    ///
    /// # Errors
    /// [`OpenError::BadAddress`], without anything that may be part of a password.
    pub(crate) fn parse(address: &str) -> Result<Self, OpenError> {
        let bad = |reason: &str| OpenError::BadAddress { reason: scrubbed(reason, address) };
        if !address.contains("://") {
            let set = keywords(address).filter(|set| !set.is_empty()).ok_or_else(|| {
                bad("it is neither a postgres:// address nor keyword=value pairs")
            })?;
            return Ok(Self { form: Form::Keywords(address.to_owned()), set });
        }
        if misplaced(address) {
            return Err(bad(
                "an @, /, ? or # stands where it has another meaning; in a user, password or name write them as \
                 %40, %2F, %3F, %23",
            ));
        }
        let url = Url::parse(address)
            .map_err(|_| bad("it is neither a postgres:// address nor keyword=value pairs"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(bad(&format!("{} is not a postgres:// address", redacted(address))));
        }
        let mut set: Vec<(String, String)> =
            url.query_pairs().map(|(name, value)| (name.into(), value.into())).collect();
        let named = |name: &str| set.iter().any(|(set, _)| set == name);
        if let (false, Some(host)) = (named("host"), url.host_str().filter(|host| !host.is_empty()))
        {
            let decoded = host.replace("%2F", "/").replace("%2f", "/");
            set.push(("host".to_owned(), decoded.trim_matches(['[', ']']).to_owned()));
        }
        Ok(Self { form: Form::Url(url), set })
    }

    /// What the address itself says.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        // libpq takes the last one.
        self.set.iter().rev().find(|(set, _)| set == name).map(|(_, value)| value.as_str())
    }

    /// Adds a parameter unless the address sets it.
    pub(crate) fn default(&mut self, name: &str, value: &str) {
        if self.get(name).is_some() {
            return;
        }
        match &mut self.form {
            Form::Url(url) => {
                url.query_pairs_mut().append_pair(name, value);
            }
            Form::Keywords(text) => {
                let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
                text.push_str(&format!(" {name}='{escaped}'"));
            }
        }
        self.set.push((name.to_owned(), value.to_owned()));
    }

    /// For libpq.
    pub(crate) fn into_address(self) -> String {
        match self.form {
            Form::Url(mut url) => {
                // libpq does not read `+` as a blank.
                let query = url.query().map(|query| query.replace('+', "%20"));
                url.set_query(query.as_deref());
                url.into()
            }
            Form::Keywords(text) => text,
        }
    }
}

/// libpq's `keyword = 'value'` pairs; `None` where they cannot be read.
fn keywords(text: &str) -> Option<Vec<(String, String)>> {
    let mut set = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start())?;
        set.push((name.trim().to_owned(), value));
        rest = after.trim_start();
    }
    Some(set)
}

fn value(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted => return Some((value, text.get(at + 1..)?)),
            c if c.is_whitespace() && !quoted => return Some((value, text.get(at..)?)),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_added_to() {
        for address in [
            "postgres://u:p%2Fq@db.example:5433/shop?sslmode=verify-full",
            "host=db.example port = 5433 user=u password='p/q \\' r' sslmode='verify-full'",
        ] {
            let mut info = Conninfo::parse(address).expect(address);
            assert_eq!(info.get("host"), Some("db.example"), "{address}");
            info.default("sslmode", "disable");
            info.default("application_name", "it's me");
            assert_eq!(info.get("sslmode"), Some("verify-full"), "{address}");
            let full = info.into_address();
            let again = Conninfo::parse(&full).expect("still readable");
            assert_eq!(again.get("application_name"), Some("it's me"), "{full}");
            assert!(!full.contains('+') && !full.contains("disable"), "{full}");
        }
    }

    #[test]
    fn a_socket_is_a_host_too() {
        for address in [
            "postgres:///shop?host=/run/postgresql",
            "postgres://%2Frun%2Fpostgresql/shop",
            "host=/run/postgresql dbname=shop",
        ] {
            let info = Conninfo::parse(address).expect(address);
            assert_eq!(info.get("host"), Some("/run/postgresql"), "{address}");
        }
    }

    #[test]
    fn what_is_neither_form_is_refused_without_its_password() {
        for bad in [
            "mysql://u:canary@h/db",
            "postgres://u:canary@h:port/db",
            "u:canary@h",
            "host=h password='canary",
            "postgres://u:12/canary@h/db",
            "postgres://u:ca/nary@h/db",
            "postgres://u:1?canary@h/db",
            "postgres://u:1#canary@h/db",
            "postgres://u:1@canary/2@h/db",
        ] {
            let error = Conninfo::parse(bad).err().expect(bad).to_string();
            assert!(!error.contains("canary") && !error.contains("nary"), "{error}");
            assert!(!redacted(bad).contains("nary"), "{}", redacted(bad));
        }
    }
}
