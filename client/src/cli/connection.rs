//! The options that say which server and who asks, and what becomes of them.

use std::io;
use std::sync::Arc;

use clap::Args;

use super::{Invocation, output, password};
use crate::connector::NetConnector;
use crate::conninfo::{Conninfo, ConninfoError};
use crate::error::ClientError;
use crate::login::Login;

/// Connection options, the same for every tool that connects.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct ConnectionArguments {
    /// connection string
    #[arg(short = 'd', long, value_name = "CONNSTR")]
    pub(crate) dbname: Option<String>,
    /// database server host or socket directory
    #[arg(short = 'h', long, value_name = "HOSTNAME")]
    host: Option<String>,
    /// database server port number
    #[arg(short = 'p', long, value_name = "PORT")]
    port: Option<String>,
    /// connect as specified database user
    #[arg(short = 'U', long, value_name = "NAME")]
    username: Option<String>,
    /// never prompt for password
    #[arg(short = 'w', long, overrides_with = "password")]
    no_password: bool,
    /// force password prompt (should happen automatically)
    #[arg(short = 'W', long, overrides_with = "no_password")]
    password: bool,
}

impl ConnectionArguments {
    /// A connection string and nothing else.
    pub(crate) fn of(dbname: &str, no_password: bool, password: bool) -> Self {
        let dbname = Some(dbname.to_owned());
        Self { dbname, host: None, port: None, username: None, no_password, password }
    }
}

/// A server, and how to log in there.
pub(crate) struct Server {
    /// Everything that was said about the connection.
    pub(crate) conninfo: Conninfo,
    /// Opens connections.
    pub(crate) connector: Arc<NetConnector>,
    /// Who logs in.
    pub(crate) login: Login,
    may_ask: bool,
}

impl Server {
    /// The connection string, the options over it, and the environment below it. `-W` asks here.
    pub(crate) fn new(invocation: &Invocation, arguments: &ConnectionArguments) -> Result<Self, String> {
        let text = |error: ConninfoError| error.to_string();
        let mut conninfo = match &arguments.dbname {
            Some(dbname) => Conninfo::parse(dbname).map_err(text)?,
            None => Conninfo::default(),
        };
        for (keyword, value) in [("host", &arguments.host), ("port", &arguments.port), ("user", &arguments.username)] {
            if let Some(value) = value {
                conninfo.set(keyword, value).map_err(text)?;
            }
        }
        conninfo.fill_from(|variable| std::env::var(variable).ok()).map_err(text)?;
        conninfo.check().map_err(text)?;

        let mut login = conninfo.login(invocation.alias()).map_err(text)?;
        if arguments.password {
            login.password = password::ask().map_err(|error| error.to_string())?;
        }
        for warning in conninfo.look_up_passwords(&mut login) {
            output::tell(format_args!("WARNING: {warning}"));
        }
        let connector = Arc::new(conninfo.connector().map_err(text)?);
        let may_ask = !arguments.no_password && login.password.is_none();
        Ok(Self { conninfo, connector, login, may_ask })
    }

    /// Asks for the password if the server did and somebody is there to answer. If so, another try makes sense.
    pub(crate) fn ask_after(&mut self, error: &ClientError) -> io::Result<bool> {
        // As libpq's tools do: ask once the server has asked, and once only.
        if !error.needs_password() || !self.may_ask {
            return Ok(false);
        }
        self.may_ask = false;
        self.login.password = password::ask()?;
        Ok(self.login.password.is_some())
    }
}
