//! Encryption: when it is asked for, and whom it trusts.
//!
//! libpq's rules. A file with trusted authorities is used if it is there, whatever the mode; a mode that verifies requires it.
//! Only `verify-full` looks at names.

mod certificate;
mod identity;
mod verifier;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

pub(crate) use self::identity::Shown;

use self::identity::Identity;
use self::verifier::Verifier;
use crate::connector::BoxStream;

/// The protocol's name in ALPN (`PG_ALPN_PROTOCOL`), since 17.
const ALPN: &[u8] = b"postgresql";

/// `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Never.
    Disable,
    /// If the server refuses to go on without.
    Allow,
    /// If the server can.
    Prefer,
    /// Always.
    Require,
    /// Always, with a certificate that a trusted authority signed.
    VerifyCa,
    /// Always, and the certificate is for the host that was asked for.
    VerifyFull,
}

/// Whether and how a connection is encrypted. A Unix socket never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// When.
    pub mode: Mode,
    /// How.
    pub tls: TlsParameters,
}

impl Encryption {
    /// None.
    pub const DISABLE: Self = Self { mode: Mode::Disable, tls: TlsParameters::NOTHING };

    /// With a certificate for the host's name, signed by the authority in `pem`.
    pub fn verify_full(pem: impl Into<String>) -> Self {
        Self { mode: Mode::VerifyFull, tls: TlsParameters { roots: Roots::Pem(pem.into()), ..TlsParameters::NOTHING } }
    }
}

/// A file of a kind, which a default place need not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was named: it then has to be there.
    pub given: bool,
}

/// Who vouches for servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The authorities in a file, if there is one.
    File(Option<CertificateFile>),
    /// Those of the operating system.
    System,
    /// These.
    Pem(String),
}

/// A version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// What `ssl…` parameters say besides the mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsParameters {
    /// `sslrootcert`.
    pub roots: Roots,
    /// `sslcrl`.
    pub revoked: Option<CertificateFile>,
    /// `sslcrldir`.
    pub revoked_in: Option<PathBuf>,
    /// `sslcert`.
    pub certificate: Option<CertificateFile>,
    /// `sslkey`.
    pub key: Option<CertificateFile>,
    /// `sslpassword`.
    pub key_password: Option<String>,
    /// `ssl_min_protocol_version`.
    pub oldest: Option<TlsVersion>,
    /// `ssl_max_protocol_version`.
    pub newest: Option<TlsVersion>,
    /// `sslsni`: whether the server is told which host was asked for.
    pub server_name: bool,
    /// `sslnegotiation=direct`: TLS at once, without asking.
    pub direct: bool,
}

impl TlsParameters {
    const NOTHING: Self = Self {
        roots: Roots::File(None),
        revoked: None,
        revoked_in: None,
        certificate: None,
        key: None,
        key_password: None,
        oldest: None,
        newest: None,
        server_name: true,
        direct: false,
    };

    pub(crate) fn check(&self) -> Result<(), String> {
        match (self.oldest, self.newest) {
            (Some(oldest), Some(newest)) if oldest > newest => Err("invalid SSL protocol version range".to_owned()),
            _ => Ok(()),
        }
    }

    /// What rustls needs to know.
    fn config(&self, mode: Mode, host: &str) -> Result<(ClientConfig, Arc<Identity>), String> {
        let text = |error: rustls::Error| format!("could not create SSL context: {error}");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (oldest, newest) = (self.oldest.unwrap_or(TlsVersion::Tls12), self.newest.unwrap_or(TlsVersion::Tls13));
        let versions = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
        let versions = versions.into_iter().filter(|(version, _)| (oldest..=newest).contains(version));
        let versions: Vec<_> = versions.map(|(_, version)| version).collect();
        let verifier = Verifier::new(
            self.roots(mode)?,
            self.revoked()?,
            (mode == Mode::VerifyFull).then(|| host.to_owned()),
            Arc::clone(&provider),
        )?;
        let identity = match self.identity()? {
            None => Identity::none(),
            Some((chain, key)) => Identity::new(chain, key, &provider).map_err(|error| {
                let (certificate, key) = (path_of(self.certificate.as_ref()), path_of(self.key.as_ref()));
                format!("certificate \"{certificate}\" does not match private key file \"{key}\": {error}")
            })?,
        };
        let identity = Arc::new(identity);
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(text)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = builder.with_client_cert_resolver(Arc::clone(&identity) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = self.server_name;
        config.resumption = Resumption::disabled();
        Ok((config, identity))
    }

    /// The trusted authorities; none if certificates are not verified.
    fn roots(&self, mode: Mode) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
        let pem = match &self.roots {
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
                    return Err(format!("could not load system root certificate paths: {error}"));
                }
                return Ok(Some(found.certs));
            }
            Roots::Pem(pem) => pem.clone().into_bytes(),
            Roots::File(file) => match file.as_ref().filter(|file| file.path.exists()) {
                Some(file) => read("root certificate", &file.path)?,
                None if mode < Mode::VerifyCa => return Ok(None),
                None => {
                    let path = path_of(file.as_ref());
                    return Err(format!(
                        "root certificate file \"{path}\" does not exist\nEither provide the file, use the system's \
                         trusted roots with sslrootcert=system, or change sslmode to disable server certificate \
                         verification."
                    ));
                }
            },
        };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(Some(certificates)),
            Ok(_) => Err("could not read root certificate file: no certificate in it".to_owned()),
            Err(error) => Err(format!("could not read root certificate file: {error}")),
        }
    }

    fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        let file = self.revoked.as_ref().filter(|file| file.given || file.path.exists());
        let mut files: Vec<PathBuf> = file.map(|file| file.path.clone()).into_iter().collect();
        files.extend(self.revoked_in.as_deref().map(hashed_lists).unwrap_or_default());
        let mut lists = Vec::new();
        for file in files {
            let pem = read("certificate revocation list", &file)?;
            let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
            lists.extend(
                read.map_err(|error| format!("could not read revocation list \"{}\": {error}", file.display()))?,
            );
        }
        Ok(lists)
    }

    /// The client's own certificate and its key.
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        let Some(file) = self.certificate.as_ref().filter(|file| file.given || file.path.exists()) else {
            return Ok(None);
        };
        let path = file.path.display();
        let pem = read("certificate", &file.path)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| format!("could not read certificate file \"{path}\": {error}"))?;
        if chain.is_empty() {
            return Err(format!("could not read certificate file \"{path}\": no certificate in it"));
        }
        let key = self.key.as_ref().filter(|file| file.path.exists());
        let Some(key) = key else {
            let key = path_of(self.key.as_ref());
            return Err(format!("certificate present, but not private key file \"{key}\""));
        };
        check_key_file(&key.path)?;
        let pem = read("private key", &key.path)?;
        let unusable = |error: String| format!("could not load private key file \"{}\": {error}", key.path.display());
        let key = match identity::decrypt(&pem, self.key_password.as_deref()) {
            Some(decrypted) => decrypted.map_err(unusable)?,
            None => PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(error.to_string()))?,
        };
        Ok(Some((chain, key)))
    }
}

fn path_of(file: Option<&CertificateFile>) -> String {
    file.map(|file| file.path.display().to_string()).unwrap_or_default()
}

/// The lists in a directory that `openssl rehash` keeps: `1234abcd.r0`. Like OpenSSL, it takes what is there.
fn hashed_lists(directory: &Path) -> Vec<PathBuf> {
    let hashed = |path: &PathBuf| {
        let (hash, number) = (path.file_stem(), path.extension().and_then(|end| end.to_str()));
        let number = number.and_then(|end| end.strip_prefix('r'));
        hash.and_then(|hash| hash.to_str())
            .is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
            && number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut lists: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(hashed).collect();
    lists.sort();
    lists
}

/// Reads a file that is no larger than such files are.
fn read(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    const MAX: u64 = 16 << 20;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            Err(format!("could not read {what} file \"{}\": {}", path.display(), crate::error::reason(&error)))
        }
    }
}

/// A key that others can read is no secret.
fn check_key_file(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    let metadata = path
        .metadata()
        .map_err(|error| format!("could not open private key file \"{shown}\": {}", crate::error::reason(&error)))?;
    if !metadata.is_file() {
        return Err(format!("private key file \"{shown}\" is not a regular file"));
    }
    // Root's may be readable by a group, as packages install them.
    let allowed = if metadata.uid() == 0 { 0o640 } else { 0o600 };
    if metadata.mode() & 0o777 & !allowed & 0o077 != 0 {
        return Err(format!(
            "private key file \"{shown}\" has group or world access; file must have permissions u=rw (0600) or less if \
             owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root"
        ));
    }
    Ok(())
}

/// An encrypted connection.
pub(crate) struct Encrypted {
    pub(crate) stream: BoxStream,
    /// The channel binding `tls-server-end-point`, if the server's certificate has one.
    pub(crate) end_point: Option<Vec<u8>>,
    /// What became of the client's certificate.
    pub(crate) certificate: Shown,
}

/// Encrypts `stream` to `host`. The error is what libpq would say.
pub(crate) async fn encrypt(stream: BoxStream, encryption: &Encryption, host: &str) -> Result<Encrypted, String> {
    let Encryption { mode, tls } = encryption;
    if *mode == Mode::VerifyFull && host.is_empty() {
        return Err("host name must be specified for a verified SSL connection".to_owned());
    }
    let (config, identity) = tls.config(*mode, host)?;
    // What is no name of DNS is not sent, and verified by the verifier only.
    let name = ServerName::try_from(host.to_owned());
    let name = name.unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()));
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| explain(&error))?;
    let (_, session) = stream.get_ref();
    if tls.direct && session.alpn_protocol() != Some(ALPN) {
        return Err("direct SSL connection was established without ALPN protocol negotiation extension".to_owned());
    }
    let end_point = session.peer_certificates().and_then(<[_]>::first);
    let end_point = end_point.and_then(|certificate| certificate::end_point(certificate));
    Ok(Encrypted { stream: Box::new(stream), end_point, certificate: identity.shown() })
}

/// Why there is no encryption.
fn explain(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        // Ours.
        Some(rustls::Error::General(problem)) => problem.clone(),
        Some(rustls::Error::InvalidCertificate(problem)) => format!("SSL error: certificate verify failed: {problem}"),
        Some(other) => format!("SSL error: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "SSL SYSCALL error: EOF detected".to_owned(),
        None => format!("SSL SYSCALL error: {}", crate::error::reason(error)),
    }
}

/// The authorities as rustls takes them.
fn store(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    // A file may hold what is no authority beside those that are.
    store.add_parsable_certificates(certificates.iter().cloned());
    store
}
