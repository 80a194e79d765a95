//! What happens on the machine of a client. Whoever started the client does it; a server that is merely served to strangers
//! cannot.

mod fail_fsync;
mod fill_disk;
mod kill_client;
mod protect_disk;
mod start_client;

pub use self::fail_fsync::FailFsync;
pub use self::fill_disk::FillDisk;
pub use self::kill_client::{KillClient, Signal};
pub use self::protect_disk::ProtectDisk;
pub use self::start_client::StartClient;

use super::Point;

/// What `when` lacks for something to happen to the machine of `client`, or without it of the connection that came to the point.
fn lacks_machine(client: Option<&str>, when: &Point) -> Option<&'static str> {
    (client.is_none() && !when.has_session()).then_some("\"client\": no connection comes to this point")
}

/// A machine is that of a client with a name. `action` is what would happen to it.
fn valid_owner(client: Option<&str>, action: &str) -> Result<(), String> {
    match client {
        Some(client) if client.starts_with('#') => {
            Err(format!("client {client:?} is a connection: {action} needs a client's name"))
        }
        _ => Ok(()),
    }
}
