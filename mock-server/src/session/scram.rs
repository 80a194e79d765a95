//! The server's side of SCRAM-SHA-256 (RFC 5802, 7677), as `auth-scram.c` speaks it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// `scram_iterations`.
const ITERATIONS: u32 = 4096;

/// The one mechanism that is offered.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// What a client said wrong. Every problem is reported with SQLSTATE 08P01, except a proof that does not match.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScramError {
    /// `malformed SCRAM message`, with a DETAIL.
    Malformed(&'static str),
    /// The password is wrong, or there is no such role.
    Refused,
}

/// An exchange after the client's first message.
#[derive(Debug)]
pub(super) struct Exchange {
    gs2_header: String,
    client_first_bare: String,
    nonce: String,
    server_first: String,
    stored_key: [u8; 32],
    server_key: [u8; 32],
    /// Whether the role exists. An unknown one goes through the whole exchange and fails at its end.
    genuine: bool,
}

impl Exchange {
    /// Reads client-first-message. `secret` is the password; without one there is no such role.
    pub(super) fn begin(
        client_first: &[u8],
        secret: Option<&str>,
        salt: [u8; 16],
        server_nonce: [u8; 18],
    ) -> Result<Self, ScramError> {
        let text = str::from_utf8(client_first).map_err(|_| ScramError::Malformed("The message is not text."))?;
        let malformed = |detail| move || ScramError::Malformed(detail);
        // n: no channel binding; y: the client could, but thinks that the server cannot. An authorization identity is refused.
        let bare = text.strip_prefix("n,,").or_else(|| text.strip_prefix("y,,"));
        let bare = bare.ok_or_else(malformed("Unexpected channel-binding flag or authorization identity."))?;
        let gs2_header = text.get(..3).unwrap_or_default().to_owned();
        let attributes = bare.strip_prefix("n=").ok_or_else(malformed("Expected attribute \"n\"."))?;
        let (_user, rest) = attributes.split_once(",r=").ok_or_else(malformed("Expected attribute \"r\"."))?;
        let client_nonce = rest.split(',').next().unwrap_or_default();
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Malformed("The nonce is empty or holds unprintable characters."));
        }
        let nonce = format!("{client_nonce}{}", BASE64.encode(server_nonce));
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(salt));
        let salted = salted_password(secret.unwrap_or_default().as_bytes(), &salt);
        let client_key = mac(&salted, &[b"Client Key"]);
        Ok(Self {
            gs2_header,
            client_first_bare: bare.to_owned(),
            nonce,
            server_first,
            stored_key: Sha256::digest(client_key).into(),
            server_key: mac(&salted, &[b"Server Key"]),
            genuine: secret.is_some(),
        })
    }

    /// server-first-message.
    pub(super) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Reads client-final-message; server-final-message if its proof is right.
    pub(super) fn finish(&self, client_final: &[u8]) -> Result<String, ScramError> {
        let text = str::from_utf8(client_final).map_err(|_| ScramError::Malformed("The message is not text."))?;
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or(ScramError::Malformed("Expected attribute \"p\"."))?;
        let expected = format!("c={},r={}", BASE64.encode(&self.gs2_header), self.nonce);
        if without_proof != expected {
            return Err(ScramError::Malformed("The nonce or the channel binding does not match."));
        }
        let proof = BASE64.decode(proof).ok().and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let mut client_key = proof.ok_or(ScramError::Malformed("Malformed proof in client-final-message."))?;
        let message =
            [self.client_first_bare.as_bytes(), b",", self.server_first.as_bytes(), b",", without_proof.as_bytes()];
        let signature = mac(&self.stored_key, &message);
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        if <[u8; 32]>::from(Sha256::digest(client_key)) != self.stored_key || !self.genuine {
            return Err(ScramError::Refused);
        }
        Ok(format!("v={}", BASE64.encode(mac(&self.server_key, &message))))
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

/// `Hi()`: PBKDF2 with one block. The password is taken as it is, which is what SASLprep makes of ASCII.
fn salted_password(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut last = mac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut result = last;
    for _ in 1..ITERATIONS {
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

    use super::*;

    fn exchange(password: &str, secret: Option<&str>) -> Result<(), ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let exchange = Exchange::begin(client.message(), secret, [7; 16], [9; 18])?;
        client.update(exchange.server_first().as_bytes()).unwrap();
        let server_final = exchange.finish(client.message())?;
        client.finish(server_final.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn an_independent_client_is_let_in_with_the_password_only() {
        assert_eq!(exchange("secret", Some("secret")), Ok(()));
        assert_eq!(exchange("Secret", Some("secret")), Err(ScramError::Refused));
        assert_eq!(exchange("", None), Err(ScramError::Refused));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for message in ["", "p=tls-unique,,n=,r=x", "n,,r=x", "n,,n=x", "n,,n=,r=", "n,a=x,n=,r=x"] {
            assert!(Exchange::begin(message.as_bytes(), Some("secret"), [0; 16], [0; 18]).is_err(), "{message}");
        }
        let exchange = Exchange::begin(b"n,,n=,r=abc", Some("secret"), [0; 16], [0; 18]).unwrap();
        for message in ["", "c=biws,r=abc,p=AAAA", "c=biws,r=other,p="] {
            assert!(matches!(exchange.finish(message.as_bytes()), Err(ScramError::Malformed(_))), "{message}");
        }
    }
}
