//! What the server does or says, in its own words or in others.

mod abort_backup;
mod change_parameter;
mod change_row;
mod crash;
mod drop_slot;
mod error;
mod notice;
mod promote;
mod recycle_wal;
mod shutdown;
mod start_backup;
mod stop_backup;
mod switch_wal;
mod terminate;

pub use self::abort_backup::AbortBackup;
pub use self::change_parameter::ChangeParameter;
pub use self::change_row::ChangeRow;
pub use self::crash::Crash;
pub use self::drop_slot::DropSlot;
pub use self::error::Error;
pub use self::notice::{Notice, NoticeSeverity};
pub use self::promote::Promote;
pub use self::recycle_wal::RecycleWal;
pub use self::shutdown::{Shutdown, ShutdownMode};
pub use self::start_backup::StartBackup;
pub use self::stop_backup::StopBackup;
pub use self::switch_wal::SwitchWal;
pub use self::terminate::Terminate;
