//! What happens to the files of the cluster while it is backed up.

mod add_file;
mod change_file;
mod grow_file;
mod remove_file;
mod shrink_file;

pub use self::add_file::AddFile;
pub use self::change_file::ChangeFile;
pub use self::grow_file::GrowFile;
pub use self::remove_file::RemoveFile;
pub use self::shrink_file::ShrinkFile;
