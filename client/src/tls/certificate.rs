//! What a certificate says: for whom it is, until when, and how it was signed.

use std::net::IpAddr;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// `tls-server-end-point` (RFC 5929): the hash of the certificate, with the hash of its signature, or SHA-256 for weak ones. None for
/// a signature that names no hash.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let algorithm = parse(certificate).ok()?.signature_algorithm().oid.to_string();
    match algorithm.as_str() {
        // MD5, SHA-1 and SHA-256 with RSA; SHA-1 and SHA-256 with ECDSA; SHA-256 with DSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2"
        | "2.16.840.1.101.3.4.3.2" => Some(Sha256::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// Refuses a certificate before and after its time.
pub(super) fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = parse(certificate)?;
    let validity = certificate.tbs_certificate().validity();
    let now = std::time::Duration::from_secs(now.as_secs());
    if now < validity.not_before.to_unix_duration() {
        Err(CertificateError::NotValidYet.into())
    } else if now > validity.not_after.to_unix_duration() {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}

/// Refuses a certificate for others than `host`: an alternative name has to match, or the common name if there is no alternative of
/// its kind.
pub(super) fn check_name(certificate: &CertificateDer<'_>, host: &str) -> Result<(), Error> {
    let certificate = parse(certificate)?;
    let tbs = certificate.tbs_certificate();
    let alternatives = tbs.get_extension::<SubjectAltName>().map_err(|_| CertificateError::BadEncoding)?;
    let alternatives = alternatives.map(|(_, names)| names.0).unwrap_or_default();
    let address: Option<IpAddr> = host.parse().ok();
    let mut names = Vec::new();
    let mut common_name_counts = true;
    for name in &alternatives {
        match name {
            GeneralName::DnsName(name) => {
                common_name_counts &= address.is_some();
                if matches(name.as_str(), host) {
                    return Ok(());
                }
                names.push(name.to_string());
            }
            GeneralName::IpAddress(bytes) => {
                let bytes = bytes.as_bytes();
                let named = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                let named = named.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok();
                common_name_counts &= address.is_none();
                if named.is_some() && named == address {
                    return Ok(());
                }
                names.extend(named.map(|named| named.to_string()));
            }
            _ => {}
        }
    }
    if common_name_counts && let Some(name) = common_name(&certificate) {
        if matches(&name, host) {
            return Ok(());
        }
        names.push(name);
    }
    let more = names.len().saturating_sub(1);
    let others = match more {
        0 => String::new(),
        1 => " (and 1 other name)".to_owned(),
        more => format!(" (and {more} other names)"),
    };
    let problem = match names.first() {
        None => "could not get server's host name from server certificate".to_owned(),
        Some(name) => {
            let name = crate::error::shown(name.as_bytes());
            format!("server certificate for \"{name}\"{others} does not match host name \"{host}\"")
        }
    };
    Err(Error::General(problem))
}

/// Whether a name in a certificate is the host's: letters of either case, and `*.` for one label in front.
fn matches(name: &str, host: &str) -> bool {
    if name.is_empty() || name.contains('\0') {
        return false;
    }
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(domain), Some((label, rest))) = (name.strip_prefix("*."), host.split_once('.')) else { return false };
    !label.is_empty() && host.parse::<IpAddr>().is_err() && !domain.is_empty() && domain.eq_ignore_ascii_case(rest)
}

/// The last common name of the subject.
fn common_name(certificate: &Certificate) -> Option<String> {
    let mut found = None;
    for attribute in certificate.tbs_certificate().subject().iter() {
        if attribute.oid.to_string() == "2.5.4.3" {
            let value = &attribute.value;
            let text = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
            let text =
                text.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()));
            let text = text.or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()));
            found = text.ok().or(found);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;

    fn certificate(names: &[&str], common_name: &str) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn names_are_matched_as_libpq_does() {
        let fits = |names: &[&str], common_name: &str, host: &str| {
            check_name(&certificate(names, common_name), host).map_err(|error| match error {
                Error::General(problem) => problem,
                other => other.to_string(),
            })
        };
        assert_eq!(fits(&["db.example.com"], "x", "DB.example.com"), Ok(()));
        assert_eq!(fits(&["*.example.com"], "x", "db.example.com"), Ok(()));
        assert_eq!(fits(&[], "db.example.com", "db.example.com"), Ok(()));
        assert_eq!(fits(&["10.0.0.1"], "x", "10.0.0.1"), Ok(()));
        assert_eq!(fits(&["10.0.0.1"], "db", "db"), Ok(()), "no alternative of its kind");
        let refused = [
            fits(&["*.example.com"], "x", "a.db.example.com"),
            fits(&["*.example.com"], "x", "example.com"),
            fits(&["a", "b"], "db", "db"),
            fits(&["10.0.0.1"], "10.0.0.2", "10.0.0.2"),
            fits(&["a", "b", "10.0.0.1"], "db", "10.0.0.2"),
        ];
        insta::assert_snapshot!(refused.map(|fits| fits.expect_err("another name")).join("\n"), @r#"
        server certificate for "*.example.com" does not match host name "a.db.example.com"
        server certificate for "*.example.com" does not match host name "example.com"
        server certificate for "a" (and 1 other name) does not match host name "db"
        server certificate for "10.0.0.1" does not match host name "10.0.0.2"
        server certificate for "a" (and 2 other names) does not match host name "10.0.0.2"
        "#);
    }

    #[test]
    fn the_end_point_is_hashed_as_the_certificate_was_signed() {
        let params = CertificateParams::new(vec!["a".to_owned()]).expect("names");
        let key = KeyPair::generate().expect("a key");
        let der = params.clone().self_signed(&key).expect("a certificate").der().clone();
        assert_eq!(end_point(&der), Some(Sha256::digest(&der).to_vec()));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let der = params.self_signed(&key).expect("a certificate").der().clone();
        assert_eq!(end_point(&der), Some(Sha384::digest(&der).to_vec()));
        assert_eq!(end_point(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn a_certificate_has_its_time() {
        let der = certificate(&["a"], "a");
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        assert_eq!(check_time(&der, at(1_700_000_000)), Ok(()));
        assert_eq!(check_time(&der, at(0)), Err(CertificateError::NotValidYet.into()));
        assert_eq!(check_time(&der, at(100_000_000_000)), Err(CertificateError::Expired.into()));
    }
}
