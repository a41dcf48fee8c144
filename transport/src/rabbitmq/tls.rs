//! What both ends of a TLS connection have to prove.

use std::path::{Path, PathBuf};

use super::settings::RabbitSettings;

/// The files a connection's trust and identity come from.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsFiles {
    /// Authorities trusted instead of the system's.
    ca: Option<PathBuf>,
    /// Our own certificate and its key.
    client: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Which files to read. Reads none.
    pub(super) fn of(settings: &RabbitSettings) -> Result<Self, String> {
        let client = match (&settings.client_cert_file, &settings.client_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(certificate), None) => {
                return Err(format!(
                    "client_cert_file is {} and client_key_file is not set; name the certificate's private key",
                    certificate.display()
                ));
            }
            (None, Some(key)) => {
                return Err(format!(
                    "client_key_file is {} and client_cert_file is not set; name the key's certificate",
                    key.display()
                ));
            }
        };
        Ok(Self { ca: settings.ca_file.clone(), client })
    }

    /// The first setting that only means something with TLS.
    pub(super) fn named(&self) -> Option<(&'static str, &Path)> {
        match (&self.ca, &self.client) {
            (Some(ca), _) => Some(("ca_file", ca)),
            (None, Some((certificate, _))) => Some(("client_cert_file", certificate)),
            (None, None) => None,
        }
    }

    /// Whether we have a certificate to show.
    pub(super) fn identifies_us(&self) -> bool {
        self.client.is_some()
    }
}

#[cfg(feature = "tls")]
pub(super) use connector::{BadFiles, Refusal, refusal};

#[cfg(feature = "tls")]
mod connector {
    use std::fmt::Display;
    use std::path::Path;

    use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{AlertDescription, CertificateError, Error};

    use super::TlsFiles;

    impl TlsFiles {
        /// Reads the files. Done for every connection, so that a renewed certificate is taken up
        /// without a restart.
        ///
        /// # Errors
        /// What is wrong with which setting. Quotes no contents.
        pub(in super::super) fn connector(&self) -> Result<RustlsConnector, String> {
            let config = match &self.ca {
                // Instead of the system's authorities, not beside them: any of those could vouch for
                // somebody else under the broker's name.
                Some(path) => RustlsConnectorConfig::default()
                    .with_parsable_certificates(certificates("ca_file", path)?),
                None => RustlsConnectorConfig::new_with_native_certs().map_err(|error| {
                    format!(
                        "cannot load the system's certificates: {error}; install them (ca-certificates) or name the broker's authority in ca_file"
                    )
                })?,
            };
            let Some((certificate, key)) = &self.client else {
                return config.connector_with_no_client_auth().map_err(|error| match &self.ca {
                    Some(path) => format!("ca_file {}: {error}", path.display()),
                    None => error.to_string(),
                });
            };
            let chain = certificates("client_cert_file", certificate)?;
            let secret = PrivateKeyDer::from_pem_slice(&read("client_key_file", key)?).map_err(|_| {
                // Not its own text, which may go into detail about a secret.
                format!(
                    "client_key_file {} holds no private key that can be read; it should be PEM and not encrypted",
                    key.display()
                )
            })?;
            config.connector_with_single_cert(chain, secret).map_err(|error| {
                format!(
                    "client_cert_file {} and client_key_file {} cannot be used: {error}; they should be an X.509 certificate and the private key it was made for",
                    certificate.display(),
                    key.display()
                )
            })
        }
    }

    fn read(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
        std::fs::read(path)
            .map_err(|error| format!("cannot read {setting} {}: {error}", path.display()))
    }

    fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
        let bad = |why: &dyn Display| {
            format!("{setting} {} {why}; it should hold PEM certificates", path.display())
        };
        let pem = read(setting, path)?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| bad(&"is not readable as PEM"))?;
        if found.is_empty() { Err(bad(&"holds no certificate")) } else { Ok(found) }
    }

    /// The files could not be used when a connection was made.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub(in super::super) struct BadFiles(pub(in super::super) String);

    /// What a connection that did not come about means.
    pub(in super::super) enum Refusal {
        /// Our own files.
        Settings(String),
        /// One side could not prove who it is, or they have no protocol in common. Waiting does not
        /// cure it.
        Final(String),
        /// Anything else; may pass.
        Passing,
    }

    /// Reads the client's error as one of TLS.
    pub(in super::super) fn refusal(error: &std::io::Error) -> Refusal {
        let inner = error.get_ref();
        if let Some(BadFiles(reason)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Refusal::Settings(reason.clone());
        }
        match inner.and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(why)) => Refusal::Final(certificate(why)),
            Some(Error::InvalidMessage(_)) => Refusal::Final(
                "it does not speak TLS; check the port (5671 is usual for amqps). Plain text is not tried instead"
                    .to_owned(),
            ),
            Some(Error::PeerIncompatible(why)) => Refusal::Final(format!(
                "it offers no TLS version or cipher that we accept ({why:?}); let it offer TLS 1.2 or 1.3"
            )),
            Some(Error::AlertReceived(alert)) => alerted(*alert),
            _ => Refusal::Passing,
        }
    }

    fn certificate(why: &CertificateError) -> String {
        match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it there, and check the clock here".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; check the clocks on both sides".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name; connect by a name that it carries, or have one made for this name"
                    .to_owned()
            }
            // A bad signature is an authority of the same name with another key, as after its renewal.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is from an authority that is not trusted here; name that authority's certificate in ca_file"
                    .to_owned()
            }
            other => format!("its certificate is refused: {other}; have one made that can be verified"),
        }
    }

    fn alerted(alert: AlertDescription) -> Refusal {
        match alert {
            AlertDescription::CertificateRequired => Refusal::Final(
                "it wants a certificate from us; set client_cert_file and client_key_file"
                    .to_owned(),
            ),
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => Refusal::Final(format!(
                "it refused our certificate ({alert:?}); have client_cert_file made by an authority that the broker trusts, and renew it in time"
            )),
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName => Refusal::Final(format!(
                "it refused the handshake ({alert:?}); check its TLS versions, its certificates and whether it wants one from us (client_cert_file)"
            )),
            _ => Refusal::Passing,
        }
    }
}
