//! Connection strings: pairs and URIs.

use super::{Conninfo, ConninfoError, refuse};

/// Reads `text`: a URI, or a string of `key=value` pairs.
pub(super) fn parse(text: &str) -> Result<Conninfo, ConninfoError> {
    let mut conninfo = Conninfo::default();
    if let Some(rest) = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        parse_uri(&mut conninfo, text, rest)?;
    } else {
        parse_pairs(&mut conninfo, text)?;
    }
    Ok(conninfo)
}

fn parse_pairs(conninfo: &mut Conninfo, text: &str) -> Result<(), ConninfoError> {
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((keyword, after)) = rest.split_once('=') else {
            let first = rest.split_whitespace().next().unwrap_or_default();
            return refuse(format!("missing \"=\" after \"{first}\" in connection info string"));
        };
        let keyword = keyword.trim_end();
        if keyword.contains(char::is_whitespace) {
            let first = keyword.split_whitespace().next().unwrap_or_default();
            return refuse(format!("missing \"=\" after \"{first}\" in connection info string"));
        }
        let (value, after) = take_value(after.trim_start())?;
        conninfo.set(keyword, &value)?;
        rest = after.trim_start();
    }
    Ok(())
}

/// `uri` is all of it, `rest` what follows the scheme.
fn parse_uri(conninfo: &mut Conninfo, uri: &str, rest: &str) -> Result<(), ConninfoError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    for (keyword, value) in [("user", user), ("password", password), ("dbname", database)] {
        if !value.is_empty() {
            conninfo.set(keyword, &decode_percent(value)?)?;
        }
    }
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = split_host(uri, host)?;
            names.push(decode_percent(name)?);
            ports.push(decode_percent(port)?);
        }
        conninfo.set("host", &names.join(","))?;
        if ports.iter().any(|port| !port.is_empty()) {
            conninfo.set("port", &ports.join(","))?;
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((keyword, value)) = pair.split_once('=') else {
            return refuse(format!("missing key/value separator \"=\" in URI query parameter: \"{pair}\""));
        };
        if value.contains('=') {
            return refuse(format!("extra key/value separator \"=\" in URI query parameter: \"{keyword}\""));
        }
        let (keyword, value) = (decode_percent(keyword)?, decode_percent(value)?);
        // JDBC's word for it.
        if keyword == "ssl" && value == "true" {
            conninfo.set("sslmode", "require")?;
        } else {
            let unknown = |_| ConninfoError(format!("invalid URI query parameter: \"{keyword}\""));
            conninfo.set(&keyword, &value).map_err(unknown)?;
        }
    }
    Ok(())
}

/// A value, quoted or not, and what follows it.
fn take_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let mut value = String::new();
    let quoted = text.starts_with('\'');
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, text.get(index + 1..).unwrap_or_default())),
            c if !quoted && c.is_whitespace() => return Ok((value, text.get(index..).unwrap_or_default())),
            c => value.push(c),
        }
    }
    if quoted { refuse("unterminated quoted string in connection info string") } else { Ok((value, "")) }
}

/// `host`, `host:port`, `[::1]:port`.
fn split_host<'a>(uri: &str, text: &'a str) -> Result<(&'a str, &'a str), ConninfoError> {
    let Some(inner) = text.strip_prefix('[') else { return Ok(text.split_once(':').unwrap_or((text, ""))) };
    let Some((host, after)) = inner.split_once(']') else {
        let problem = "end of string reached when looking for matching \"]\" in IPv6 host address in URI";
        return refuse(format!("{problem}: \"{uri}\""));
    };
    if host.is_empty() {
        return refuse(format!("IPv6 host address may not be empty in URI: \"{uri}\""));
    }
    match after.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if after.is_empty() => Ok((host, "")),
        None => {
            let position = uri.len() - after.len() + 1;
            let unexpected = after.chars().next().unwrap_or_default();
            let expected = "(expected \":\" or \"/\")";
            refuse(format!("unexpected character \"{unexpected}\" at position {position} in URI {expected}: \"{uri}\""))
        }
    }
}

fn decode_percent(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.split_at_checked(2).and_then(|(digits, after)| {
            rest = after;
            let hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
            hexadecimal.then(|| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()).flatten()
        });
        match digits {
            Some(0) => return refuse(format!("forbidden value %00 in percent-encoded value: \"{text}\"")),
            Some(byte) => bytes.push(byte),
            None => return refuse(format!("invalid percent-encoded token: \"{text}\"")),
        }
    }
    String::from_utf8(bytes).or_else(|_| refuse(format!("invalid percent-encoded token: \"{text}\"")))
}

/// A value as `appendConnStrVal` writes it.
pub(super) fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let escaped: String =
        value.chars().flat_map(|c| matches!(c, '\'' | '\\').then_some('\\').into_iter().chain([c])).collect();
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Conninfo {
        parse(text).expect("a connection string")
    }

    #[test]
    fn reads_pairs() {
        let conninfo = read(r"host = /tmp port=5433 user='o\'k' password=a\ b application_name=''");
        assert_eq!(conninfo.get("host"), Some("/tmp"));
        assert_eq!(conninfo.get("user"), Some("o'k"));
        assert_eq!(conninfo.get("password"), Some("a b"));
        assert_eq!(conninfo.get("application_name"), None);
        assert_eq!(read("  "), Conninfo::default());
    }

    #[test]
    fn reads_uris() {
        let conninfo = read("postgresql://me:p%40ss@h1:5433,[::1]/db?application_name=x&sslmode=disable&ssl=true");
        assert_eq!(conninfo.get("password"), Some("p@ss"));
        assert_eq!(conninfo.get("dbname"), Some("db"));
        assert_eq!((conninfo.get("host"), conninfo.get("port")), (Some("h1,::1"), Some("5433,")));
        assert_eq!(conninfo.get("sslmode"), Some("require"));
        assert_eq!(read("postgres://%2Ftmp").get("host"), Some("/tmp"));
    }

    #[test]
    fn says_what_is_wrong_as_libpq_does() {
        let refused = [
            "hots=x",
            "host='x",
            "a b=c",
            "host=x user",
            "postgres",
            "postgresql://h?nosuch=1",
            "postgresql://h?user",
            "postgresql://h?user=a=b",
            "postgresql://[::1",
            "postgresql://[]",
            "postgresql://[::1]x",
            "postgresql://a%zz",
            "postgresql://a%+1",
            "postgresql://a%00",
        ];
        let said = refused.map(|text| parse(text).expect_err(text).to_string());
        insta::assert_snapshot!(said.join("\n"), @r#"
        invalid connection option "hots"
        unterminated quoted string in connection info string
        missing "=" after "a" in connection info string
        missing "=" after "user" in connection info string
        missing "=" after "postgres" in connection info string
        invalid URI query parameter: "nosuch"
        missing key/value separator "=" in URI query parameter: "user"
        extra key/value separator "=" in URI query parameter: "user"
        end of string reached when looking for matching "]" in IPv6 host address in URI: "postgresql://[::1"
        IPv6 host address may not be empty in URI: "postgresql://[]"
        unexpected character "x" at position 19 in URI (expected ":" or "/"): "postgresql://[::1]x"
        invalid percent-encoded token: "a%zz"
        invalid percent-encoded token: "a%+1"
        forbidden value %00 in percent-encoded value: "a%00"
        "#);
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in ".{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("postgresql://{text}"));
        }

        #[test]
        fn what_is_quoted_is_read_back(value in "[^\0]{1,20}") {
            let conninfo = read(&format!("user={}", quoted(&value)));
            prop_assert_eq!(conninfo.get("user"), Some(value.as_str()));
        }
    }
}
