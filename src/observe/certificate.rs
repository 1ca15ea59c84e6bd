//! The certificates of the brokers, as Secrets hold them, held against what brokers that run believe and show.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::time::Instant;

use super::Observer;
use crate::api::{RivvenClusterSpec, TlsSpec};
use crate::broker::{Certificate, Tls, tls};
use crate::{names, render};

/// How long a certificate that was read counts. Then its Secrets are read again, as it may have been renewed.
const COUNTS: Duration = Duration::from_secs(50);

/// A certificate that ends sooner is told of.
const SOON: TimeDelta = TimeDelta::days(14);

/// By namespace, Secret, and Secret of the clients' authority.
pub(super) type ReadBefore = HashMap<(String, String, Option<String>), Read>;

/// A certificate that was read.
#[derive(Clone)]
pub(super) struct Read {
    at: Instant,
    certificate: Arc<Certificate>,
}

/// Why there is no certificate.
pub(super) enum Lack {
    /// A Secret is not there.
    Missing(String),
    /// A Secret could not be looked up.
    Unknown(String),
    /// What is in the Secrets is no certificate.
    Invalid(String),
}

impl Lack {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Missing(what) => format!("{what} does not exist"),
            Self::Unknown(what) => format!("{what} could not be looked up"),
            Self::Invalid(why) => why.clone(),
        }
    }
}

/// The certificate of a spec, and whether brokers may be restarted onto it.
#[derive(Default)]
pub(super) struct Verdict {
    /// What is rendered. `None`: there is none, nor was there one before.
    pub(super) material: Option<render::Material>,
    /// The Secret that a certificate is waited for in, and why it is not there yet.
    pub(super) awaited: Option<String>,
    /// It ends soon, and nobody is known who renews it.
    pub(super) ends_soon: bool,
    /// It cannot be used.
    pub(super) problem: Option<String>,
    /// It would cut brokers off from each other.
    pub(super) divides: Option<String>,
    /// A Secret that is not there, or could not be looked up.
    pub(super) missing: Option<(String, Option<bool>)>,
}

impl Verdict {
    /// As decisions see it.
    pub(super) fn seen(&self) -> rivven_fsm::cluster::Certificate {
        rivven_fsm::cluster::Certificate { awaited: self.awaited.clone(), ends_soon: self.ends_soon }
    }
}

impl Observer {
    /// The certificate of the brokers of a cluster. `None`: they serve none.
    pub(super) async fn certificate(
        &self,
        namespace: &str,
        cluster: &str,
        tls: &TlsSpec,
    ) -> Option<Result<Arc<Certificate>, Lack>> {
        let secret = tls.secret(cluster)?;
        let key = (namespace.to_owned(), secret.clone(), tls.client_ca_secret_name.clone());
        let before = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(read) = before.filter(|read| read.at.elapsed() < COUNTS) {
            return Some(Ok(read.certificate));
        }
        let read = self.read_certificate(namespace, &secret, tls.client_ca_secret_name.as_deref()).await;
        if let Ok(certificate) = &read {
            let read = Read { at: Instant::now(), certificate: Arc::clone(certificate) };
            self.certificates.lock().unwrap_or_else(PoisonError::into_inner).insert(key, read);
        }
        Some(read)
    }

    async fn read_certificate(
        &self,
        namespace: &str,
        secret: &str,
        clients: Option<&str>,
    ) -> Result<Arc<Certificate>, Lack> {
        let own = self.secret(namespace, secret).await?;
        let clients = match clients {
            Some(name) => Some(self.secret(namespace, name).await?),
            None => None,
        };
        let value = |secret: &Secret, key: &str| secret.data.as_ref()?.get(key).map(|value| value.0.clone());
        let needed = |key: &str| value(&own, key).ok_or_else(|| Lack::Invalid(format!("Secret {secret} has no {key}")));
        let clients = match &clients {
            Some(clients) => Some(
                value(clients, "ca.crt")
                    .ok_or_else(|| Lack::Invalid("the Secret tls.clientCaSecretName has no ca.crt".to_owned()))?,
            ),
            None => None,
        };
        let authority = value(&own, "ca.crt");
        Certificate::read(&needed("tls.crt")?, &needed("tls.key")?, authority.as_deref(), clients.as_deref())
            .map(Arc::new)
            .map_err(|why| Lack::Invalid(format!("Secret {secret}: {why}")))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, Lack> {
        match Api::<Secret>::namespaced(self.client.clone(), namespace).get_opt(name).await {
            Ok(Some(secret)) => Ok(secret),
            Ok(None) => Err(Lack::Missing(format!("Secret {name}"))),
            Err(_) => Err(Lack::Unknown(format!("Secret {name}"))),
        }
    }

    /// How the brokers of a cluster are spoken to, as they were accepted. `None`: in plain text.
    pub(super) async fn tls_to(&self, namespace: &str, cluster: &str, tls: &TlsSpec) -> Option<Tls> {
        Some(match self.certificate(namespace, cluster, tls).await? {
            Ok(certificate) => certificate.tls.clone(),
            Err(lack) => Tls::unavailable(lack.words()),
        })
    }

    /// The same for a cluster that another object refers to.
    pub(super) async fn tls_of(&self, namespace: &str, cluster: &str) -> Option<Tls> {
        let set = self.caches.stateful_sets.get(namespace, &names::stateful_set(cluster))?;
        // Most brokers show no certificate, and there may be thousands of topics that ask.
        set.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(names::CERTIFICATE_HASH)?;
        let spec: RivvenClusterSpec = serde_json::from_str(set.annotations().get(names::ACCEPTED_SPEC)?).ok()?;
        self.tls_to(namespace, cluster, &spec.tls).await
    }

    /// Whether brokers may be restarted onto the certificate that a spec names, and what is rendered.
    pub(super) async fn judge_certificate(
        &self,
        (namespace, cluster): (&str, &str),
        (tls, brokers): (&TlsSpec, u32),
        carried: Option<&render::Material>,
        now: DateTime<Utc>,
    ) -> Verdict {
        let Some(read) = self.certificate(namespace, cluster, tls).await else { return Verdict::default() };
        let material = carried.cloned();
        let certificate = match read {
            Ok(certificate) => certificate,
            Err(Lack::Invalid(why)) => return Verdict { material, problem: Some(why), ..Verdict::default() },
            // The issuer has yet to make it.
            Err(lack) if tls.issuer_ref.is_some() => {
                let awaited = material.is_none().then(|| lack.words());
                return Verdict { material, awaited, ..Verdict::default() };
            }
            Err(Lack::Missing(what)) => {
                return Verdict { material, missing: Some((what, Some(false))), ..Verdict::default() };
            }
            Err(Lack::Unknown(what)) => {
                return Verdict { material, missing: Some((what, None)), ..Verdict::default() };
            }
        };
        let host = |ordinal| names::host(cluster, namespace, ordinal, &self.domain);
        let wrong = (0..brokers).map(host).find_map(|host| {
            certificate.problem(&host, now).map(|why| format!("the certificate cannot be used for {host}: {why}"))
        });
        let divides = carried.filter(|carried| brokers > 1 && carried.hash != certificate.hash).and_then(|carried| {
            let new = tls::disbelief(&carried.authorities, &certificate.shown, &host(0), now);
            let old = tls::disbelief(&certificate.authorities, &carried.shown, &host(0), now);
            let new = new.map(|why| format!("brokers that run do not believe the new certificate ({why})"));
            new.or(old.map(|why| format!("brokers would not believe those that still run with the old one ({why})")))
        });
        if wrong.is_some() || divides.is_some() {
            return Verdict { material, problem: wrong, divides, ..Verdict::default() };
        }
        let (hash, authorities) = (certificate.hash.clone(), certificate.authorities.clone());
        let material = Some(render::Material { hash, authorities, shown: certificate.shown.clone() });
        let ends_soon = tls.issuer_ref.is_none() && certificate.problem(&host(0), now + SOON).is_some();
        Verdict { material, ends_soon, ..Verdict::default() }
    }
}

/// What brokers that run were rendered with, as the StatefulSet and the ConfigMap say.
pub(super) fn carried(set: Option<&Value>, map: Option<&Value>) -> Option<render::Material> {
    let annotations = set?.pointer("/spec/template/metadata/annotations")?;
    let text = |key: &str| map?["data"].get(key)?.as_str().map(str::to_owned);
    Some(render::Material {
        hash: annotations.get(names::CERTIFICATE_HASH)?.as_str()?.to_owned(),
        authorities: text(names::AUTHORITIES_KEY)?,
        shown: text(names::CERTIFICATE_KEY)?,
    })
}
