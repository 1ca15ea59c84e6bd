//! TLS to brokers: whom the operator believes to be one, and how it shows who it is itself.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::Error;

/// How TLS is spoken to the brokers of a cluster. The key in it is never shown.
#[derive(Clone)]
pub struct Tls(Arc<Result<TlsConnector, String>>);

impl Tls {
    /// Brokers that cannot be spoken to, and why: never in plain text instead.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self(Arc::new(Err(why.into())))
    }

    /// Speaks TLS over `stream` to the broker of this DNS name.
    pub(super) async fn over<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let unreachable = |words: String| Error::Unreachable(words);
        let connector = self.0.as_ref().as_ref().map_err(|why| unreachable(why.clone()))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(error.to_string()))?;
        connector.connect(name, stream).await.map_err(|error| unreachable(format!("TLS: {error}")))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_ok() { "Tls(…)" } else { "Tls(unavailable)" })
    }
}

/// What the brokers of a cluster show, and whom they and the operator believe.
///
/// The brokers have one file of authorities for both their peers and their clients (read in the released source), so
/// whoever has a certificate of either is let in where clients must show one.
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    /// The certificate and its chain as PEM. Public.
    pub shown: String,
    /// The authorities as PEM: those of the certificate and those of the clients. Public.
    pub authorities: String,
    /// Changes with the certificate and with the authorities, and with nothing else.
    pub hash: String,
    /// How the operator speaks to brokers that show it. It shows it too.
    pub tls: Tls,
}

impl Certificate {
    /// Reads PEM as it stands in Secrets: `tls.crt`, `tls.key`, `ca.crt` of the certificate and `ca.crt` of the clients.
    /// Without an authority of its own, a certificate is believed because it is this one.
    pub fn read(
        certificate: &[u8],
        key: &[u8],
        authority: Option<&[u8]>,
        clients: Option<&[u8]>,
    ) -> Result<Self, String> {
        let chain = certificates("tls.crt", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.key: {error}"))?;
        let authority = authority.filter(|authority| !authority.trim_ascii().is_empty());
        if clients.is_some() && authority.is_none() {
            return Err("ca.crt is missing beside tls.crt: where clients must show a certificate, brokers show theirs to each other, and need its authority".to_owned());
        }
        let mut trusted = certificates("ca.crt", authority.unwrap_or(certificate))?;
        if let Some(clients) = clients {
            trusted.extend(certificates("ca.crt of the clients", clients)?);
        }
        let roots = Arc::new(roots("ca.crt", &trusted)?);
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider())
            .map_err(|error| format!("tls.key is not the key of tls.crt: {error}"))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_root_certificates(Arc::clone(&roots)).with_client_auth_cert(chain.clone(), key)
            })
            .map_err(|error| error.to_string())?;
        let mut hash = Sha256::new();
        chain.iter().chain(&trusted).for_each(|der| hash.update(der));
        let pem = |part: &[u8]| format!("{}\n", String::from_utf8_lossy(part).trim());
        Ok(Self {
            chain,
            roots,
            shown: pem(certificate),
            authorities: pem(authority.unwrap_or(certificate)) + &clients.map(pem).unwrap_or_default(),
            hash: hash.finalize().iter().take(8).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")),
            tls: Tls(Arc::new(Ok(TlsConnector::from(Arc::new(config))))),
        })
    }

    /// What is wrong with it for a broker of this DNS name, by its own authorities.
    pub fn problem(&self, host: &str, now: DateTime<Utc>) -> Option<String> {
        verify(&self.chain, Arc::clone(&self.roots), host, now).err().map(|error| error.to_string())
    }
}

/// Why brokers that believe `authorities` do not believe one of this DNS name that shows `shown`, if they do not. They
/// read both when they start: in a rollout, those before it and those after it must believe each other.
pub fn disbelief(authorities: &str, shown: &str, host: &str, now: DateTime<Utc>) -> Option<String> {
    let believed = || -> Result<(), String> {
        let roots = Arc::new(roots("ca.crt", &certificates("ca.crt", authorities.as_bytes())?)?);
        match verify(&certificates("tls.crt", shown.as_bytes())?, roots, host, now) {
            // Too old is no matter of whose it is, and a newer one is the way out.
            Ok(())
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    };
    believed().err()
}

/// Never the process's default: there is none where two libraries bring one each.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{what} holds no certificate")),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

fn roots(what: &str, trusted: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in trusted {
        roots.add(root.clone()).map_err(|error| format!("{what}: {error}"))?;
    }
    Ok(roots)
}

fn verify(
    chain: &[CertificateDer<'static>],
    roots: Arc<RootCertStore>,
    host: &str,
    now: DateTime<Utc>,
) -> Result<(), rustls::Error> {
    let general = |words: String| rustls::Error::General(words);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    let verifier = verifier.map_err(|error| general(error.to_string()))?;
    let Some((leaf, rest)) = chain.split_first() else { return Err(general("no certificate".to_owned())) };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| general(error.to_string()))?;
    let since = now.signed_duration_since(DateTime::UNIX_EPOCH).to_std().unwrap_or_default();
    verifier.verify_server_cert(leaf, rest, &name, &[], UnixTime::since_unix_epoch(since)).map(drop)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    const HOST: &str = "rivven-x-0.rivven-x-headless.ns.svc.cluster.local";

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Certificate and key as PEM.
    fn issued(by: &CertifiedIssuer<'static, KeyPair>, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2040, 1, 1));
        (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
    }

    fn read(by: &CertifiedIssuer<'static, KeyPair>, host: &str, trusted: &str) -> Certificate {
        let (certificate, key) = issued(by, host);
        Certificate::read(certificate.as_bytes(), key.as_bytes(), Some(trusted.as_bytes()), None).unwrap()
    }

    fn day() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(60 * 365)
    }

    #[test]
    fn what_a_secret_lacks_is_named() {
        let (ca, other) = (authority("ca"), authority("other"));
        let (certificate, key) = issued(&ca, HOST);
        let (_, foreign) = issued(&other, HOST);
        let read = |certificate: &str, key: &str, authority: Option<&str>, clients: Option<&str>| {
            let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
            let (authority, clients) = (bytes(authority), bytes(clients));
            Certificate::read(certificate.as_bytes(), key.as_bytes(), authority.as_deref(), clients.as_deref()).err()
        };
        assert_eq!(read(&certificate, &key, Some(&ca.pem()), Some(&other.pem())), None);
        assert!(read("", &key, None, None).unwrap().contains("tls.crt"));
        assert!(read(&certificate, "", None, None).unwrap().contains("tls.key"));
        assert!(read(&certificate, &foreign, None, None).unwrap().contains("not the key"));
        assert!(read(&certificate, &key, Some("nothing"), None).unwrap().contains("ca.crt"));
        assert!(read(&certificate, &key, None, Some(&other.pem())).unwrap().contains("ca.crt is missing"));
    }

    #[test]
    fn a_certificate_is_for_a_name_and_for_a_time() {
        let ca = authority("ca");
        let certificate = read(&ca, HOST, &ca.pem());
        assert_eq!(certificate.problem(HOST, day()), None);
        assert!(certificate.problem("elsewhere.svc", day()).is_some());
        assert!(certificate.problem(HOST, day() + TimeDelta::days(20 * 365)).is_some());
        let stranger = read(&ca, HOST, &authority("other").pem());
        assert!(stranger.problem(HOST, day()).is_some(), "its own authorities do not believe it");
    }

    #[test]
    fn an_authority_is_changed_in_steps_that_believe_each_other() {
        let (old, new) = (authority("old"), authority("new"));
        let both = format!("{}{}", old.pem(), new.pem());
        let steps = [
            read(&old, HOST, &old.pem()),
            read(&old, HOST, &both),
            read(&new, HOST, &both),
            read(&new, HOST, &new.pem()),
        ];
        for pair in steps.windows(2) {
            assert_eq!(disbelief(&pair[0].authorities, &pair[1].shown, HOST, day()), None);
            assert_eq!(disbelief(&pair[1].authorities, &pair[0].shown, HOST, day()), None);
            assert_ne!(pair[0].hash, pair[1].hash, "each step is a rollout");
        }
        assert!(disbelief(&steps[0].authorities, &steps[3].shown, HOST, day()).is_some());
        assert!(disbelief(&steps[3].authorities, &steps[0].shown, HOST, day()).is_some());
        let ended = day() + TimeDelta::days(20 * 365);
        assert_eq!(disbelief(&steps[1].authorities, &steps[0].shown, HOST, ended), None, "a newer one is the way out");
    }

    #[test]
    fn a_key_is_never_shown() {
        let ca = authority("ca");
        let certificate = read(&ca, HOST, &ca.pem());
        let shown = format!("{:?}{}{}", certificate.tls, certificate.shown, certificate.authorities);
        assert!(!shown.contains("PRIVATE"));
    }
}
