//! One connection to one server, opened when it is needed, every call with a deadline.
//!
//! A connection that failed or ran into its deadline is thrown away: an answer that comes late
//! would otherwise be taken for the answer to the next question.

use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, TlsCertificates, Value,
};
use thiserror::Error;

use crate::config::settings::{self, Host, Tls};

/// Why a Redis could not be asked.
#[derive(Debug, Error)]
pub enum RedisError {
    /// The file with the certificate authorities cannot be read.
    #[error("cannot read the certificate authorities of redis in {path}")]
    CaFile {
        /// Where they should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The client refuses the settings, for example certificates that are not PEM.
    #[error("cannot use the settings for redis at {address}")]
    Settings {
        /// Which server.
        address: String,
        /// What the client said.
        #[source]
        source: redis::RedisError,
    },
    /// No connection.
    #[error("cannot connect to redis at {address}")]
    Connect {
        /// Which server.
        address: String,
        /// What the client said.
        #[source]
        source: redis::RedisError,
    },
    /// The server did not let us in.
    #[error("redis at {address} refused the login of user {user}: {text}")]
    Login {
        /// Which server.
        address: String,
        /// As whom.
        user: String,
        /// What the server said.
        text: String,
    },
    /// No answer in time: the server is frozen, overloaded or cut off.
    #[error("redis at {address} did not answer within {}", humantime::format_duration(*.after))]
    Deadline {
        /// Which server.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke during the call.
    #[error("lost the connection to redis at {address}")]
    Lost {
        /// Which server.
        address: String,
        /// What the client said.
        #[source]
        source: redis::RedisError,
    },
    /// The server answered a command with an error.
    #[error("redis at {address} refused {command}: {code} {text}")]
    Refused {
        /// Which server.
        address: String,
        /// Command, without its arguments.
        command: &'static str,
        /// First word of the error, such as `NOPERM`.
        code: String,
        /// The rest of it.
        text: String,
    },
    /// The answer is not what this command answers.
    #[error("redis at {address} gave an answer to {command} that makes no sense: {what}")]
    Senseless {
        /// Which server.
        address: String,
        /// Command, without its arguments.
        command: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl RedisError {
    /// Whether the same call may well succeed in a moment.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Deadline { .. } | Self::Lost { .. } => true,
            Self::Refused { code, .. } => {
                matches!(code.as_str(), "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN")
            }
            Self::Login { text, .. } => text.contains("LOADING"),
            Self::CaFile { .. } | Self::Settings { .. } | Self::Senseless { .. } => false,
        }
    }

    /// First word of what the server answered, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::CaFile { .. }
            | Self::Settings { .. }
            | Self::Connect { .. }
            | Self::Login { .. }
            | Self::Deadline { .. }
            | Self::Lost { .. }
            | Self::Senseless { .. } => None,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::CaFile { .. } => {
                "Check the path in `ca_file` and that the user understudy may read it."
            }
            Self::Settings { .. } => "Check the address and the certificates of this redis.",
            Self::Connect { .. } => {
                "Check that redis runs, listens on this address (`bind`, `port`, `unixsocket`) and, \
                 with TLS, that its certificate is valid for this name and signed by `ca_file`."
            }
            Self::Login { .. } => {
                "Check user and password; `ACL LIST` on the server shows the users it knows."
            }
            Self::Deadline { .. } => {
                "The server accepted the connection but does not work: look at its load, its disk \
                 and whether its process is stopped."
            }
            Self::Lost { .. } => "Look into the log of redis: it stopped or closed the connection.",
            Self::Refused { code, .. } if code == "NOPERM" => {
                "Give the ACL user: +ping +info +role +replicaof +slaveof +config|rewrite +config|get \
                 +acl|dryrun +pubsub|numsub +set +get ~understudy:*; for a rejoin or a switchover also \
                 +psync +replconf +client|pause +client|unpause"
            }
            Self::Refused { code, .. } if code == "LOADING" => "Wait until redis has loaded.",
            Self::Refused { .. } | Self::Senseless { .. } => {
                "Run the command with redis-cli as the same user; is this really a redis or valkey?"
            }
        }
    }
}

/// One connection to one server.
pub(super) struct Connection {
    client: Client,
    address: String,
    user: String,
    deadline: Duration,
    open: Option<MultiplexedConnection>,
}

impl Connection {
    /// Checks the settings; connects later.
    pub(super) fn new(host: &Host, settings: &settings::Redis) -> Result<Self, RedisError> {
        install_crypto_provider();
        let address = name(host);
        let client = client(host, settings, &address)?;
        let user = settings.user.clone().unwrap_or_else(|| "default".to_owned());
        Ok(Self { client, address, user, deadline: settings.call_timeout, open: None })
    }

    /// Where the server listens, for people.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whom the server takes us for.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Sends `commands` together and returns one answer for each, which may be an error of the
    /// server.
    ///
    /// A kept connection that the server closed meanwhile is replaced once, within the same
    /// deadline; so a command must do no harm when it is executed twice.
    pub(super) async fn ask(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let kept = self.open.take();
        let work = async {
            if let Some(mut connection) = kept {
                match send(&mut connection, commands).await {
                    Ok(answers) => return Ok((connection, answers)),
                    Err(error) if error.is_timeout() => return Err(self.failed(error)),
                    // The server closed it between two calls, for example because it was restarted.
                    Err(_) => {}
                }
            }
            let mut connection = self.connect().await?;
            let answers = send(&mut connection, commands).await.map_err(|e| self.failed(e))?;
            Ok((connection, answers))
        };
        let (connection, answers) = tokio::time::timeout(self.deadline, work)
            .await
            .map_err(|_elapsed| self.late())
            .flatten()?;
        self.open = Some(connection);
        if answers.len() != commands.len() {
            self.open = None;
            return Err(self.senseless("a pipeline", format!("{} answers", answers.len())));
        }
        Ok(answers)
    }

    /// Sends one command; an error of the server is an error.
    pub(super) async fn ask_one(
        &mut self,
        name: &'static str,
        command: Cmd,
    ) -> Result<Value, RedisError> {
        let answer = self.ask(&[command]).await?.pop().unwrap_or(Value::Nil);
        self.accepted(name, answer)
    }

    /// Turns an error of the server into an error.
    pub(super) fn accepted(&self, name: &'static str, answer: Value) -> Result<Value, RedisError> {
        let Value::ServerError(error) = answer else { return Ok(answer) };
        Err(RedisError::Refused {
            address: self.address.clone(),
            command: name,
            code: error.code().to_owned(),
            text: error.details().unwrap_or_default().to_owned(),
        })
    }

    /// An answer that this command cannot give.
    pub(super) fn senseless(&self, command: &'static str, what: String) -> RedisError {
        RedisError::Senseless { address: self.address.clone(), command, what }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.deadline))
            .set_response_timeout(Some(self.deadline));
        self.client.get_multiplexed_async_connection_with_config(&config).await.map_err(|source| {
            if source.is_timeout() {
                return self.late();
            }
            if source.kind() == ErrorKind::AuthenticationFailed || source.code().is_some() {
                let text = source.to_string();
                return RedisError::Login {
                    address: self.address.clone(),
                    user: self.user.clone(),
                    text,
                };
            }
            RedisError::Connect { address: self.address.clone(), source }
        })
    }

    fn failed(&self, source: redis::RedisError) -> RedisError {
        if source.is_timeout() {
            return self.late();
        }
        RedisError::Lost { address: self.address.clone(), source }
    }

    fn late(&self) -> RedisError {
        RedisError::Deadline { address: self.address.clone(), after: self.deadline }
    }
}

/// A server's address, for people.
pub(super) fn name(host: &Host) -> String {
    match host {
        Host::Tcp(name, port) => format!("{name}:{port}"),
        Host::Unix(path, _) => path.display().to_string(),
    }
}

/// Makes *ring* the process's default for TLS, which the client asks for. Harmless if it is
/// already.
fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It only fails if there is a default already, which is then as good.
        let _present = rustls::crypto::ring::default_provider().install_default();
    });
}

async fn send(
    connection: &mut MultiplexedConnection,
    commands: &[Cmd],
) -> redis::RedisResult<Vec<Value>> {
    if let [command] = commands {
        return Ok(vec![connection.send_packed_command(command).await?]);
    }
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command.clone());
    }
    connection.send_packed_commands(&pipeline, 0, commands.len()).await
}

fn client(host: &Host, settings: &settings::Redis, address: &str) -> Result<Client, RedisError> {
    // No `CLIENT SETINFO`: a user with few rights may not call it, and it costs a round trip.
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(user) = &settings.user {
        login = login.set_username(user);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(password.expose());
    }
    let unusable = |source| RedisError::Settings { address: address.to_owned(), source };
    let addr = match (host, &settings.tls) {
        (Host::Unix(path, _), _) => ConnectionAddr::Unix(path.clone()),
        (Host::Tcp(name, port), Tls::Off) => ConnectionAddr::Tcp(name.clone(), *port),
        (Host::Tcp(name, port), Tls::Verify { .. }) => ConnectionAddr::TcpTls {
            host: name.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
    };
    let info = addr
        .into_connection_info()
        .map_err(unusable)?
        .set_redis_settings(login)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    match (host, &settings.tls) {
        (Host::Tcp(..), Tls::Verify { ca_file: Some(path) }) => {
            let pem = std::fs::read(path)
                .map_err(|source| RedisError::CaFile { path: path.clone(), source })?;
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
            Client::build_with_tls(info, certificates).map_err(unusable)
        }
        (Host::Tcp(..), Tls::Verify { ca_file: None } | Tls::Off) | (Host::Unix(..), _) => {
            Client::open(info).map_err(unusable)
        }
    }
}
