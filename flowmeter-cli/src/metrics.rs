//! Where can Prometheus read the figures of a live run?
//!
//! At an address, over HTTP, or in a file, which `node_exporter`'s textfile collector reads. Whoever
//! reads them can neither hold up the meter nor take much of it: few connections, each for a short
//! time, and one report at a time.

use std::convert::Infallible;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flowmeter::report::Report;
use flowmeter::report::openmetrics::Text;
use flowmeter::run::Control;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};

use crate::notices;

/// Why figures cannot be shown.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody could connect there.
    #[error(
        "--metrics-listen: cannot listen at {address}; name an address of this host and a port that \
         is free"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("--metrics-file: cannot write `{}`; name a file in a folder that exists and is writable", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Connections at once; others wait to be accepted.
const CONNECTIONS: usize = 16;

/// A connection ends after this time, whatever the client does.
const LONGEST: Duration = Duration::from_secs(10);

/// A request's head may take this long.
const LONGEST_HEAD: Duration = Duration::from_secs(2);

/// A report is waited for this long.
const LONGEST_REPORT: Duration = Duration::from_secs(5);

/// Bytes of a request's head; what is longer is refused.
const LARGEST_HEAD: usize = 16 * 1024;

/// After accepting has failed, as with too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// How often the file is written.
const EVERY: Duration = Duration::from_secs(15);

/// Descriptors that serving takes: the listener, its connections, the file.
pub const DESCRIPTORS: u64 = 2 + CONNECTIONS as u64;

/// Listens at an address.
pub fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|source| Error::Listen { address, source })
}

/// Answers whoever connects, for as long as it is polled. In a runtime.
pub async fn serve(listener: TcpListener, control: Arc<Control>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (room, asks) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(Mutex::new(())));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (control, asks) = (Arc::clone(&control), Arc::clone(&asks));
        tokio::spawn(async move {
            let answers = service_fn(|request| answer(request, &control, &asks));
            let mut http = server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(LONGEST_HEAD);
            http.keep_alive(false).max_buf_size(LARGEST_HEAD);
            // What goes wrong with a client is the client's affair.
            let _ =
                tokio::time::timeout(LONGEST, http.serve_connection(TokioIo::new(stream), answers))
                    .await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    control: &Arc<Control>,
    asks: &Arc<Mutex<()>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n"));
    }
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let text = Text::wanted(accept.unwrap_or_default());
    let report = match tokio::time::timeout(LONGEST_REPORT, report(control, asks)).await {
        Ok(Some(report)) => report,
        Ok(None) => return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the meter has ended\n")),
        // It waits for its output: `--when-full wait`.
        Err(_) => return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the meter is held up\n")),
    };
    let mut response = Response::new(Full::from(report.metrics(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(text.media_type()));
    Ok(response)
}

/// A report, one at a time: it is some 5 ms of waiting for the meter.
async fn report(control: &Arc<Control>, asks: &Arc<Mutex<()>>) -> Option<Report> {
    let turn = Arc::clone(asks).lock_owned().await;
    let control = Arc::clone(control);
    let report = tokio::task::spawn_blocking(move || {
        // For as long as it is waited for, even if the client has given up.
        let _turn = turn;
        control.report()
    });
    report.await.ok().flatten()
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

/// A file that always has whole figures: it is written beside, and put in place.
#[derive(Clone, Debug)]
pub struct MetricsFile {
    path: PathBuf,
    beside: PathBuf,
}

impl MetricsFile {
    /// Nothing is written yet.
    pub fn new(path: &Path) -> Self {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        Self { path: path.to_owned(), beside: beside.into() }
    }

    /// Finds out whether it can be written. One that is there stays.
    pub fn check(&self) -> Result<(), Error> {
        let is_other = self.path.symlink_metadata().is_ok_and(|found| !found.is_file());
        let checked = if is_other {
            Err(io::Error::other("it is there, and is not a regular file"))
        } else {
            self.begin().and_then(|_| fs::remove_file(&self.beside))
        };
        checked.map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    /// The file beside, made anew: what another user has put there is not followed. Whoever collects
    /// figures is another user, whatever the umask.
    fn begin(&self) -> io::Result<File> {
        match fs::remove_file(&self.beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = File::create_new(&self.beside)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        Ok(file)
    }

    /// Writes figures.
    fn write(&self, report: &Report) -> Result<(), Error> {
        let written = self
            .begin()
            .and_then(|mut file| file.write_all(report.metrics(Text::Prometheus).as_bytes()))
            .and_then(|()| fs::rename(&self.beside, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&self.beside);
        }
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    /// Writes those of a run from time to time, until it is over. What fails is said once, until it
    /// works again.
    pub fn keep(self, control: Arc<Control>) -> io::Result<Keeper> {
        let (over, is_over) = channel::<()>();
        let file = self.clone();
        let keep = move || {
            let mut has_failed = false;
            while let Some(report) = control.report() {
                match self.write(&report) {
                    Err(e) if !std::mem::replace(&mut has_failed, true) => notices::warn(e),
                    Err(_) => {}
                    Ok(()) => has_failed = false,
                }
                if is_over.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            has_failed
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(keep)?;
        Ok(Keeper { file, over, thread })
    }
}

/// The thread that writes the file.
pub struct Keeper {
    file: MetricsFile,
    over: Sender<()>,
    /// Gives whether the file could not be written, which was said.
    thread: JoinHandle<bool>,
}

impl Keeper {
    /// Writes the last figures of a run that is over.
    pub fn finish(self, report: &Report) {
        drop(self.over);
        // What has panicked has said so.
        let has_failed = self.thread.join().unwrap_or(false);
        if let Err(e) = self.file.write(report)
            && !has_failed
        {
            notices::warn(e);
        }
    }
}
