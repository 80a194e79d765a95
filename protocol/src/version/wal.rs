//! What WAL and `pg_control` look like, by release.

use super::ServerVersion;

impl ServerVersion {
    /// Whether `pg_walfile_name()` of a position between two segments names the later one.
    pub fn names_segment_behind_boundary(self) -> bool {
        self >= Self::V17
    }

    /// Whether a checkpoint's redo point is a record of its own, `XLOG_CHECKPOINT_REDO`.
    pub fn has_checkpoint_redo_record(self) -> bool {
        self >= Self::V17
    }

    /// Whether a checkpoint says the `wal_level` under which it was written.
    pub fn checkpoint_has_wal_level(self) -> bool {
        self >= Self::V17
    }

    /// Whether END_OF_RECOVERY says the `wal_level` under which it was written.
    pub fn end_of_recovery_has_wal_level(self) -> bool {
        self >= Self::V17
    }

    /// Whether the image of a block can be compressed with lz4 and zstd; the bits that tell were numbered anew for it.
    pub fn has_image_compression_methods(self) -> bool {
        self >= Self::V15
    }

    /// Whether an image says if replay restores it (`BKPIMAGE_APPLY`, for `wal_consistency_checking`).
    pub fn marks_images_to_apply(self) -> bool {
        self >= Self::V10
    }

    /// Whether a record can name the transaction that its subtransaction belongs to (`XLR_BLOCK_ID_TOPLEVEL_XID`).
    pub fn has_toplevel_xid(self) -> bool {
        self >= Self::V14
    }

    /// Whether extensions can have resource managers of their own, numbers 128 to 255.
    pub fn has_custom_resource_managers(self) -> bool {
        self >= Self::V15
    }

    /// Whether `pg_control` says how floats are passed twice, for four bytes as well as for eight.
    pub fn control_has_float4_by_value(self) -> bool {
        self <= Self::V12
    }

    /// Whether `pg_control` says if `char` is signed by default.
    pub fn control_has_char_signedness(self) -> bool {
        self >= Self::V18
    }

    /// Whether `pg_control` and WAL have the layout that this crate reads and writes.
    pub fn has_current_wal_format(self) -> bool {
        self >= Self::V12
    }
}
