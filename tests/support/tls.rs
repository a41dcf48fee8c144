//! Certificates of the test's own making, and a front that speaks TLS for a service that does not.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An authority nobody knows but those who are given its certificate.
pub struct Authority {
    /// Its certificate, as PEM.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// A new one under a name of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::named(&uuid::Uuid::now_v7().to_string())
    }

    /// A new one under the name of another.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a host name or address.
    #[must_use]
    pub fn issue(&self, name: &str) -> Identity {
        self.sign(params(name))
    }

    /// One that was good until the year 2000.
    #[must_use]
    pub fn issue_expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.not_before = date_time_ymd(1999, 1, 1);
        params.not_after = date_time_ymd(2000, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).expect("a name")
}

/// Files that end with the test.
pub struct Files(TempDir);

impl Files {
    /// An empty place.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// Writes a file, or writes it anew, and returns its path.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

/// A listener on loopback that speaks TLS and passes what is inside on.
pub struct TlsFront {
    /// Where it listens.
    pub port: u16,
    first_bytes_plain: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsFront {
    /// In front of `host:port`. With `clients`, who connects has to show a certificate of that
    /// authority.
    pub async fn to(upstream: String, identity: &Identity, clients: Option<&Authority>) -> Self {
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate(&authority.pem)).expect("an authority");
                let provider = Arc::new(default_provider());
                config.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .expect("a verifier"),
                )
            }
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let config = config
            .with_single_cert(vec![certificate(&identity.certificate)], key)
            .expect("an identity");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let plain = Arc::new(AtomicUsize::new(0));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = tokio::spawn(accept(listener, upstream, acceptor, Arc::clone(&plain)));
        Self { port, first_bytes_plain: plain, accepting }
    }

    /// How many connections began with AMQP's own greeting instead of TLS.
    #[must_use]
    pub fn spoken_to_in_plain_text(&self) -> usize {
        self.first_bytes_plain.load(Ordering::SeqCst)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    acceptor: TlsAcceptor,
    plain: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (upstream, acceptor, plain) = (upstream.clone(), acceptor.clone(), Arc::clone(&plain));
        tokio::spawn(async move {
            let mut first = [0; 4];
            if matches!(client.peek(&mut first).await, Ok(1..)) && first[0] == b'A' {
                plain.fetch_add(1, Ordering::SeqCst);
                return;
            }
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let Ok(mut server) = TcpStream::connect(upstream).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

/// A listener that takes whatever is said, answers as a plain AMQP broker does to what it does not
/// understand, and keeps it.
pub struct PlainPort {
    /// Where it listens.
    pub port: u16,
    heard: Arc<std::sync::Mutex<Vec<u8>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl PlainPort {
    /// A new one.
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let heard = Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let all = Arc::clone(&heard);
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                if let Ok(read) = client.read(&mut bytes).await {
                    all.lock().expect("no panic").extend(&bytes[..read]);
                    let _ =
                        tokio::io::AsyncWriteExt::write_all(&mut client, b"AMQP\0\0\x09\x01").await;
                    let _ = client.read_to_end(&mut bytes).await;
                }
            }
        });
        Self { port, heard, accepting }
    }

    /// Everything that was said so far.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("no panic").clone()
    }
}

impl Drop for PlainPort {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
