//! What a broken or hostile server writes in an archive.

mod break_header;
mod change_control;
mod extra_member;
mod omit_archive;
mod omit_member;
mod omit_trailer;
mod relink_member;
mod remode_member;
mod rename_member;
mod resize_header;
mod retype_member;
mod rewrite_member;
mod write_header;

pub use self::break_header::BreakHeader;
pub use self::change_control::ChangeControl;
pub use self::extra_member::ExtraMember;
pub use self::omit_archive::OmitArchive;
pub use self::omit_member::OmitMember;
pub use self::omit_trailer::OmitTrailer;
pub use self::relink_member::RelinkMember;
pub use self::remode_member::RemodeMember;
pub use self::rename_member::RenameMember;
pub use self::resize_header::ResizeHeader;
pub use self::retype_member::RetypeMember;
pub use self::rewrite_member::RewriteMember;
pub use self::write_header::WriteHeader;
