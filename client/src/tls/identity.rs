//! The certificate that this side shows, and its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, SignatureScheme};

/// What became of this side's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The server did not ask for one.
    Unasked,
    /// The server asked, and there was none.
    Missing,
    /// The server got it.
    Given,
}

/// Shows a certificate, and notes whether anybody wanted to see it.
#[derive(Debug)]
pub(super) struct Identity {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl Identity {
    pub(super) fn none() -> Self {
        Self { key: None, asked: AtomicBool::new(false) }
    }

    /// # Errors
    /// A key that does not belong to the certificate.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        let key = Arc::new(CertifiedKey::from_der(chain, key, provider)?);
        Ok(Self { key: Some(key), ..Self::none() })
    }

    pub(super) fn shown(&self) -> Shown {
        match (self.asked.load(Ordering::Relaxed), &self.key) {
            (false, _) => Shown::Unasked,
            (true, None) => Shown::Missing,
            (true, Some(_)) => Shown::Given,
        }
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// The key in `pem` if a password protects it (PKCS #8), or why it cannot be had.
pub(super) fn decrypt(pem: &[u8], password: Option<&str>) -> Option<Result<PrivateKeyDer<'static>, String>> {
    let text = str::from_utf8(pem).ok()?;
    let block = text.get(text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----")?..)?;
    let decrypt = || {
        let password = password.ok_or("it is encrypted, and there is no password (see sslpassword)")?;
        let (_, document) = SecretDocument::from_pem(block).map_err(|error| error.to_string())?;
        let sealed = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|error| error.to_string())?;
        // OpenSSL's words for a wrong password.
        let key = sealed.decrypt(password).map_err(|_| "bad decrypt".to_owned())?;
        Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
    };
    Some(decrypt())
}
