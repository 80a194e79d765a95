//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677), as `auth-scram.c` speaks it.

use backstop_protocol::backend::{Diagnostic, SqlState};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Without channel binding.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// With it, over TLS only.
pub(super) const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The one kind of channel binding.
const BINDING_TYPE: &[u8] = b"tls-server-end-point";

/// What there is of channel binding.
#[derive(Clone, Copy, Debug)]
pub(super) enum Binding<'a> {
    /// The release knows none.
    Unknown,
    /// The connection has none to offer.
    Absent,
    /// Offered, but the client chose the mechanism without.
    Declined,
    /// The client chose it: what the channel is bound to.
    Chosen(&'a [u8]),
}

/// How an exchange fails.
#[derive(Debug)]
pub(super) enum ScramError {
    /// What the client said is wrong.
    Said(Box<Diagnostic>),
    /// The password is wrong, or there is no such role.
    Refused,
}

impl From<Diagnostic> for ScramError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Said(Box::new(diagnostic))
    }
}

/// What a server keeps of a password.
#[derive(Debug)]
pub(super) struct Secret {
    iterations: u32,
    salt: [u8; 16],
    stored_key: [u8; 32],
    server_key: [u8; 32],
    /// Whether the role exists and has a password. If not, the whole exchange is gone through and fails at its end.
    genuine: bool,
}

impl Secret {
    /// The secret of a password; without one, something that nobody can prove to know.
    pub(super) fn new(password: Option<&str>, salt: [u8; 16], iterations: u32) -> Self {
        let Some(password) = password else {
            return Self { iterations, salt, stored_key: [0; 32], server_key: [0; 32], genuine: false };
        };
        // What cannot be prepared is taken as it is (`pg_saslprep`).
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let salted = salted_password(prepared.as_bytes(), &salt, iterations);
        let client_key = mac(&salted, &[b"Client Key"]);
        let (stored_key, server_key) = (Sha256::digest(client_key).into(), mac(&salted, &[b"Server Key"]));
        Self { iterations, salt, stored_key, server_key, genuine: true }
    }
}

/// An exchange after the client's first message.
#[derive(Debug)]
pub(super) struct Exchange {
    /// What the client must say of the channel: the base64 of its GS2 header and of the binding.
    channel: String,
    /// Whether that is a matter of channel binding.
    bound: bool,
    client_first_bare: Vec<u8>,
    nonce: Vec<u8>,
    server_first: Vec<u8>,
    secret: Secret,
}

impl Exchange {
    /// Reads client-first-message.
    pub(super) fn begin(
        client_first: &[u8],
        binding: Binding<'_>,
        secret: Secret,
        server_nonce: [u8; 18],
    ) -> Result<Self, ScramError> {
        let mut message = Attributes::of(client_first)?;
        let channel = read_gs2_header(&mut message, binding)?;
        let client_first_bare = message.rest.to_vec();
        if message.peek() == b'm' {
            let message = "client requires an unsupported SCRAM extension";
            return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into());
        }
        // The user of the start-up packet counts, not this one.
        message.value(b'n')?;
        let nonce = message.value(b'r')?;
        if !nonce.iter().all(u8::is_ascii_graphic) {
            return Err(violation("non-printable characters in SCRAM nonce").into());
        }
        while !message.rest.is_empty() {
            message.any()?;
        }
        let nonce = [nonce, BASE64.encode(server_nonce).as_bytes()].concat();
        let rest = format!(",s={},i={}", BASE64.encode(secret.salt), secret.iterations);
        let server_first = [b"r=", nonce.as_slice(), rest.as_bytes()].concat();
        let bound = matches!(binding, Binding::Chosen(_));
        Ok(Self { channel, bound, client_first_bare, nonce, server_first, secret })
    }

    /// server-first-message.
    pub(super) fn server_first(&self) -> &[u8] {
        &self.server_first
    }

    /// Reads client-final-message; server-final-message if its proof is right.
    pub(super) fn finish(&self, client_final: &[u8]) -> Result<String, ScramError> {
        let mut message = Attributes::of(client_final)?;
        let channel = message.value(b'c')?;
        if channel != self.channel.as_bytes() {
            let refused = "SCRAM channel binding check failed";
            return Err(ScramError::from(if self.bound {
                Diagnostic::error(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, refused)
            } else {
                violation("unexpected SCRAM channel-binding attribute in client-final-message")
            }));
        }
        let nonce = message.value(b'r')?;
        let (without_proof, proof) = loop {
            let before = client_final.len() - message.rest.len();
            let (attribute, value) = message.any()?;
            if attribute == b'p' {
                // Without the comma.
                break (client_final.get(..before.saturating_sub(1)).unwrap_or_default(), value);
            }
        };
        let proof = BASE64.decode(proof).ok().and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let proof = proof.ok_or_else(|| malformed("Malformed proof in client-final-message."))?;
        if !message.rest.is_empty() {
            return Err(malformed("Garbage found at the end of client-final-message.").into());
        }
        if nonce != self.nonce {
            return Err(violation("invalid SCRAM response").with_detail("Nonce does not match.").into());
        }
        let message: [&[u8]; 5] = [&self.client_first_bare, b",", &self.server_first, b",", without_proof];
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(mac(&self.secret.stored_key, &message)) {
            *byte ^= mask;
        }
        if <[u8; 32]>::from(Sha256::digest(client_key)) != self.secret.stored_key || !self.secret.genuine {
            return Err(ScramError::Refused);
        }
        Ok(format!("v={}", BASE64.encode(mac(&self.secret.server_key, &message))))
    }
}

/// The beginning of client-first-message: whether the channel is bound, and no authorization identity. What the client's last
/// message must then say of the channel.
fn read_gs2_header(message: &mut Attributes<'_>, binding: Binding<'_>) -> Result<String, ScramError> {
    let without = "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.";
    let with = "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.";
    let flag = message.peek();
    let channel = match (flag, binding) {
        (b'n' | b'y', Binding::Chosen(_)) => return Err(malformed(with).into()),
        (b'y', Binding::Declined) => {
            let detail = "The client supports SCRAM channel binding but thinks the server does not.  However, this server does \
                          support channel binding.";
            let message = "SCRAM channel binding negotiation error";
            let error = Diagnostic::error(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message);
            return Err(error.with_detail(detail).into());
        }
        (b'n', _) => BASE64.encode("n,,"),
        (b'y', _) => BASE64.encode("y,,"),
        (b'p', Binding::Unknown) => {
            let message = "client requires SCRAM channel binding, but it is not supported";
            return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into());
        }
        (b'p', Binding::Chosen(bound_to)) => {
            let kind = message.value(b'p')?;
            if kind != BINDING_TYPE {
                let problem = format!("unsupported SCRAM channel-binding type \"{}\"", shown(kind));
                return Err(violation(&problem).into());
            }
            BASE64.encode([b"p=", BINDING_TYPE, b",,", bound_to].concat())
        }
        (b'p', _) => return Err(malformed(without).into()),
        (other, _) => return Err(malformed(&format!("Unexpected channel-binding flag \"{}\".", Shown(other))).into()),
    };
    if flag != b'p' {
        message.skip();
        if message.peek() != b',' {
            return Err(
                malformed(&format!("Comma expected, but found character \"{}\".", Shown(message.peek()))).into()
            );
        }
        message.skip();
    }
    match message.peek() {
        b'a' => {
            let message = "client uses authorization identity, but it is not supported";
            Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message).into())
        }
        b',' => {
            message.skip();
            Ok(channel)
        }
        other => Err(malformed(&format!("Unexpected attribute \"{}\" in client-first-message.", Shown(other))).into()),
    }
}

fn violation(message: &str) -> Diagnostic {
    Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message)
}

fn malformed(detail: &str) -> Diagnostic {
    violation("malformed SCRAM message").with_detail(detail)
}

/// A character in a message, as `sanitize_char` shows it.
struct Shown(u8);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            character @ 0x21..=0x7E => write!(f, "'{}'", char::from(character)),
            byte => write!(f, "{byte:#04x}"),
        }
    }
}

/// A text in a message, as `sanitize_str` shows it: printable, at most 30 characters.
fn shown(text: &[u8]) -> String {
    text.iter().take(30).map(|byte| if (0x21..=0x7E).contains(byte) { char::from(*byte) } else { '?' }).collect()
}

/// The attributes of a message, `a=value` between commas.
#[derive(Debug)]
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    fn of(message: &'a [u8]) -> Result<Self, Diagnostic> {
        if message.is_empty() {
            return Err(malformed("The message is empty."));
        }
        if message.contains(&0) {
            return Err(malformed("Message length does not match input length."));
        }
        Ok(Self { rest: message })
    }

    /// The next character; 0 at the end.
    fn peek(&self) -> u8 {
        self.rest.first().copied().unwrap_or_default()
    }

    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// The value of the attribute that must come next (`read_attr_value`).
    fn value(&mut self, attribute: u8) -> Result<&'a [u8], Diagnostic> {
        if self.peek() != attribute {
            let (expected, found) = (char::from(attribute), Shown(self.peek()));
            return Err(malformed(&format!("Expected attribute \"{expected}\" but found \"{found}\".")));
        }
        self.any().map(|(_, value)| value)
    }

    /// The next attribute (`read_any_attr`).
    fn any(&mut self) -> Result<(u8, &'a [u8]), Diagnostic> {
        let attribute = self.peek();
        if self.rest.is_empty() {
            return Err(malformed("Attribute expected, but found end of string."));
        }
        if !attribute.is_ascii_alphabetic() {
            let found = Shown(attribute);
            return Err(malformed(&format!("Attribute expected, but found invalid character \"{found}\".")));
        }
        self.skip();
        if self.peek() != b'=' {
            let attribute = char::from(attribute);
            return Err(malformed(&format!("Expected character \"=\" for attribute \"{attribute}\".")));
        }
        self.skip();
        let end = self.rest.iter().position(|byte| *byte == b',').unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok((attribute, value))
    }
}

/// HMAC-SHA-256 of the parts in a row.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `Hi()`: PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = mac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut result = last;
    for _ in 1..iterations {
        last = mac(password, &[&last]);
        for (byte, mask) in result.iter_mut().zip(last) {
            *byte ^= mask;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    use super::*;

    fn exchange(password: &str, kept: Option<&str>, client: ChannelBinding, server: Binding<'_>) -> String {
        let mut client = ScramSha256::new(password.as_bytes(), client);
        let outcome =
            Exchange::begin(client.message(), server, Secret::new(kept, [7; 16], 4096), [9; 18]).and_then(|exchange| {
                client.update(exchange.server_first()).expect("a server-first-message");
                exchange.finish(client.message())
            });
        match outcome {
            Ok(server_final) => {
                client.finish(server_final.as_bytes()).expect("the server's signature");
                "in".to_owned()
            }
            Err(ScramError::Refused) => "refused".to_owned(),
            Err(ScramError::Said(error)) => error.to_string(),
        }
    }

    #[test]
    fn an_independent_client_is_let_in_with_the_password_only() {
        let plain = |password, kept| exchange(password, kept, ChannelBinding::unsupported(), Binding::Absent);
        assert_eq!(plain("secret", Some("secret")), "in");
        assert_eq!(plain("Secret", Some("secret")), "refused");
        assert_eq!(plain("", None), "refused");
        // A soft hyphen is nothing, and the roman numeral is a letter: RFC 4013.
        assert_eq!(plain("I\u{AD}X", Some("\u{2168}")), "in");
    }

    #[test]
    fn an_independent_client_binds_the_channel() {
        let bound = |hash: &[u8]| ChannelBinding::tls_server_end_point(hash.to_vec());
        let at = |client, server| exchange("secret", Some("secret"), client, server);
        assert_eq!(at(bound(b"certificate"), Binding::Chosen(b"certificate")), "in");
        assert_eq!(at(bound(b"other"), Binding::Chosen(b"certificate")), "ERROR:  SCRAM channel binding check failed");
        assert_eq!(at(ChannelBinding::unsupported(), Binding::Declined), "in");
        let downgraded = at(ChannelBinding::unrequested(), Binding::Declined);
        assert!(downgraded.starts_with("ERROR:  SCRAM channel binding negotiation error\nDETAIL:"), "{downgraded}");
        assert_eq!(at(ChannelBinding::unrequested(), Binding::Absent), "in");
    }

    fn begin(message: &[u8], binding: Binding<'_>) -> Result<Exchange, String> {
        match Exchange::begin(message, binding, Secret::new(Some("secret"), [7; 16], 1), [0; 18]) {
            Err(ScramError::Said(error)) => Err(error.to_string()),
            Err(ScramError::Refused) => Err("refused".to_owned()),
            Ok(exchange) => Ok(exchange),
        }
    }

    /// What 15.18, 16.2 and 18.6 answered to the same messages.
    #[test]
    fn malformed_first_messages_are_refused_as_by_servers() {
        let messages: [&[u8]; 24] = [
            b"",
            b"x",
            b"n",
            b"nn",
            b"n,a=x,n=,r=x",
            b"n,x,n=,r=x",
            b"n,,m=1,n=,r=x",
            b"n,,r=x",
            b"n,,n",
            b"n,,n=",
            b"n,,n=,r",
            b"n,,n=,r=",
            b"n,,n=,r=a b",
            b"n,,n=,r=abc,x",
            b"n,,n=,r=abc,1=2",
            b"n,,n=,r=abc,x=y",
            b"n,,n=u,r=abc",
            b"p=tls-server-end-point,,n=,r=a",
            b"p",
            b"n,,n=,r=a\xc3\xa9",
            b"\xff",
            b"n\x01,n=,r=",
            b"n,,n=,r=a\0b",
            b"n,,n=,r=abc,",
        ];
        let told = messages.map(|message| match begin(message, Binding::Absent) {
            Ok(_) => format!("{}: in order", message.escape_ascii()),
            Err(error) => {
                format!("{}: {}", message.escape_ascii(), error.replace("malformed SCRAM message\nDETAIL:", "…"))
            }
        });
        insta::assert_snapshot!(told.join("\n"), @r#"
        : ERROR:  …  The message is empty.
        x: ERROR:  …  Unexpected channel-binding flag "'x'".
        n: ERROR:  …  Comma expected, but found character "0x00".
        nn: ERROR:  …  Comma expected, but found character "'n'".
        n,a=x,n=,r=x: ERROR:  client uses authorization identity, but it is not supported
        n,x,n=,r=x: ERROR:  …  Unexpected attribute "'x'" in client-first-message.
        n,,m=1,n=,r=x: ERROR:  client requires an unsupported SCRAM extension
        n,,r=x: ERROR:  …  Expected attribute "n" but found "'r'".
        n,,n: ERROR:  …  Expected character "=" for attribute "n".
        n,,n=: ERROR:  …  Expected attribute "r" but found "0x00".
        n,,n=,r: ERROR:  …  Expected character "=" for attribute "r".
        n,,n=,r=: in order
        n,,n=,r=a b: ERROR:  non-printable characters in SCRAM nonce
        n,,n=,r=abc,x: ERROR:  …  Expected character "=" for attribute "x".
        n,,n=,r=abc,1=2: ERROR:  …  Attribute expected, but found invalid character "'1'".
        n,,n=,r=abc,x=y: in order
        n,,n=u,r=abc: in order
        p=tls-server-end-point,,n=,r=a: ERROR:  …  The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.
        p: ERROR:  …  The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.
        n,,n=,r=a\xc3\xa9: ERROR:  non-printable characters in SCRAM nonce
        \xff: ERROR:  …  Unexpected channel-binding flag "0xff".
        n\x01,n=,r=: ERROR:  …  Comma expected, but found character "0x01".
        n,,n=,r=a\x00b: ERROR:  …  Message length does not match input length.
        n,,n=,r=abc,: in order
        "#);
    }

    #[test]
    fn malformed_bindings_are_refused_as_by_servers() {
        let messages: [&[u8]; 6] = [
            b"p=tls-unique,,n=,r=abc",
            b"p=a\x01bccccccccccccccccccccccccccccccccccccccccc,,n=,r=abc",
            b"n,,n=,r=abc",
            b"y,,n=,r=abc",
            b"p=tls-server-end-point,a=x,n=,r=abc",
            b"p,,n=,r=abc",
        ];
        let told = messages.map(|message| begin(message, Binding::Chosen(b"x")).expect_err("refused"));
        insta::assert_snapshot!(told.join("\n"), @r#"
        ERROR:  unsupported SCRAM channel-binding type "tls-unique"
        ERROR:  unsupported SCRAM channel-binding type "a?bccccccccccccccccccccccccccc"
        ERROR:  malformed SCRAM message
        DETAIL:  The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.
        ERROR:  malformed SCRAM message
        DETAIL:  The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.
        ERROR:  client uses authorization identity, but it is not supported
        ERROR:  malformed SCRAM message
        DETAIL:  Expected character "=" for attribute "p".
        "#);
    }

    #[test]
    fn malformed_final_messages_are_refused_as_by_servers() {
        let exchange = begin(b"n,,n=,r=abc", Binding::Absent).expect("an exchange");
        let proof = format!("c=biws,r=abc,p={}", BASE64.encode([0; 32]));
        let messages = [
            "",
            "c",
            "c=",
            "c=biws",
            "c=biws,",
            "c=biws,r",
            "c=biws,r=abc",
            "c=biws,r=abc,p=",
            "c=biws,r=abc,p=AAAA",
            "x=biws",
            "c=biws,r=abc,x=y",
            "c=biws,r=abc,1=3",
            "c=biws,r=abc,p=%%%",
            "c=eSws,r=abc,p=A",
            &proof,
            &format!("{proof},x=1"),
        ];
        let told = messages.map(|message| match exchange.finish(message.as_bytes()) {
            Err(ScramError::Said(error)) => {
                format!("{message}: {}", error.to_string().replace("malformed SCRAM message\nDETAIL:", "…"))
            }
            other => format!("{message}: {other:?}"),
        });
        insta::assert_snapshot!(told.join("\n"), @r#"
        : ERROR:  …  The message is empty.
        c: ERROR:  …  Expected character "=" for attribute "c".
        c=: ERROR:  unexpected SCRAM channel-binding attribute in client-final-message
        c=biws: ERROR:  …  Expected attribute "r" but found "0x00".
        c=biws,: ERROR:  …  Expected attribute "r" but found "0x00".
        c=biws,r: ERROR:  …  Expected character "=" for attribute "r".
        c=biws,r=abc: ERROR:  …  Attribute expected, but found end of string.
        c=biws,r=abc,p=: ERROR:  …  Malformed proof in client-final-message.
        c=biws,r=abc,p=AAAA: ERROR:  …  Malformed proof in client-final-message.
        x=biws: ERROR:  …  Expected attribute "c" but found "'x'".
        c=biws,r=abc,x=y: ERROR:  …  Attribute expected, but found end of string.
        c=biws,r=abc,1=3: ERROR:  …  Attribute expected, but found invalid character "'1'".
        c=biws,r=abc,p=%%%: ERROR:  …  Malformed proof in client-final-message.
        c=eSws,r=abc,p=A: ERROR:  unexpected SCRAM channel-binding attribute in client-final-message
        c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=: ERROR:  invalid SCRAM response
        DETAIL:  Nonce does not match.
        c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,x=1: ERROR:  …  Garbage found at the end of client-final-message.
        "#);
    }

    proptest! {
        #[test]
        fn any_messages_are_safe(first in "[npy,=a-z]{0,20}", last: Vec<u8>) {
            let _ = begin(first.as_bytes(), Binding::Chosen(b"x"));
            let _ = begin(&last, Binding::Absent);
            if let Ok(exchange) = begin(b"n,,n=,r=abc", Binding::Absent) {
                let _ = exchange.finish(&last);
            }
        }
    }
}
