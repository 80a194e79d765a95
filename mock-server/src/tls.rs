//! TLS, with a certificate authority and a certificate that are made when the server is.

use std::sync::Arc;

use backstop_protocol::version::ServerVersion;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, ConfigError};

/// The protocol's name in ALPN (`PG_ALPN_PROTOCOL`), since 17.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// The names that every certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What a server needs to speak TLS.
///
/// The keys are new each time: signatures of ECDSA differ in every run anyhow, and nothing of them shows above the encryption.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    authority: String,
    end_point: [u8; 32],
}

impl std::fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS as configured, if it is.
    pub(crate) fn new(config: &Config, version: ServerVersion) -> Result<Option<Self>, ConfigError> {
        let Some(tls) = &config.tls else { return Ok(None) };
        let invalid = |problem: &dyn std::fmt::Display| ConfigError::invalid("tls", problem.to_string());

        let mut authority = CertificateParams::default();
        // A name of its own, so that clients tell it from the authority of another server.
        authority.distinguished_name.push(DnType::CommonName, format!("Backstop CA {:016x}", config.seed));
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().map_err(|error| invalid(&error))?;
        let authority = CertifiedIssuer::self_signed(authority, key).map_err(|error| invalid(&error))?;

        let names = NAMES.into_iter().map(str::to_owned).chain(tls.names.iter().cloned());
        let mut server = CertificateParams::new(names.collect::<Vec<_>>()).map_err(|error| invalid(&error))?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(|error| invalid(&error))?;
        let certificate = server.signed_by(&key, &authority).map_err(|error| invalid(&error))?;
        // Of the whole certificate, with the hash of its signature: SHA-256, as ECDSA with P-256 has it (RFC 5929).
        let end_point = Sha256::digest(certificate.der()).into();

        let versions = protocol_versions(config, version)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&versions).map_err(|error| invalid(&error))?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let chain = vec![certificate.der().clone()];
        let builder = builder.with_no_client_auth().with_single_cert(chain, key.into());
        let mut server = builder.map_err(|error| invalid(&error))?;
        if version.has_direct_tls() {
            server.alpn_protocols = vec![ALPN.to_vec()];
        }
        // PostgreSQL resumes no session (`be_tls_init`).
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Some(Self { acceptor: TlsAcceptor::from(Arc::new(server)), authority: authority.pem(), end_point }))
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The authority's certificate, for `sslrootcert`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The channel binding `tls-server-end-point`.
    pub(crate) fn end_point(&self) -> &[u8] {
        &self.end_point
    }
}

/// What `ssl_min_protocol_version` and `ssl_max_protocol_version` leave of TLS 1.2 and 1.3. Older ones are not spoken here.
fn protocol_versions(
    config: &Config,
    version: ServerVersion,
) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, ConfigError> {
    let rank = |name: &str, default: &'static str| {
        let value = config.settings.get(name).map_or(default, String::as_str);
        let known =
            ["", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"].iter().position(|known| known.eq_ignore_ascii_case(value));
        known.ok_or_else(|| ConfigError::invalid(format!("settings.{name}"), format!("{value:?} is no version of TLS")))
    };
    let oldest = rank("ssl_min_protocol_version", version.default_oldest_tls())?;
    let newest = match rank("ssl_max_protocol_version", "")? {
        0 => 4,
        rank => rank,
    };
    let spoken = [(3, &TLS12), (4, &TLS13)].into_iter().filter(|(rank, _)| (oldest..=newest).contains(rank));
    let spoken: Vec<_> = spoken.map(|(_, version)| version).collect();
    if spoken.is_empty() {
        return Err(ConfigError::invalid("settings.ssl_max_protocol_version", "neither TLSv1.2 nor TLSv1.3 is left"));
    }
    Ok(spoken)
}
