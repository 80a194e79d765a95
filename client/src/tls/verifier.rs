//! Whether a server's certificate is believed.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::certificate;

/// Believes by libpq's rules.
#[derive(Debug)]
pub(super) struct Verifier {
    /// None believes every certificate.
    authorities: Option<Authorities>,
    /// The name that the certificate must be for.
    host: Option<String>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Authorities {
    chains: Arc<WebPkiServerVerifier>,
    /// As they are in the file: a server's own certificate may be among them.
    certificates: Vec<CertificateDer<'static>>,
}

impl Verifier {
    pub(super) fn new(
        roots: Option<Vec<CertificateDer<'static>>>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
        host: Option<String>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let authorities = match roots {
            None => None,
            Some(certificates) => {
                let store = Arc::new(super::store(&certificates));
                let builder = WebPkiServerVerifier::builder_with_provider(store, Arc::clone(&provider));
                let builder = builder.with_crls(revoked).allow_unknown_revocation_status();
                let chains =
                    builder.build().map_err(|error| format!("could not read root certificate file: {error}"))?;
                Some(Authorities { chains, certificates })
            }
        };
        Ok(Self { authorities, host, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(Authorities { chains, certificates }) = &self.authorities {
            // A certificate that signed itself and is in the file is trusted as it stands, as OpenSSL does it.
            if certificates.iter().any(|known| known == end_entity) {
                certificate::check_time(end_entity, now)?;
            } else {
                let verified = chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                match verified {
                    // Names come after everything else, and are looked at below.
                    Ok(_)
                    | Err(Error::InvalidCertificate(
                        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                    )) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some(host) = &self.host {
            certificate::check_name(end_entity, host)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
