//! What happens to messages and connections.

mod chop;
mod close;
mod delay;
mod drop;
mod garble;
mod insert;
mod repeat;
mod reset;
mod stall;
mod swap;
mod throttle;
mod truncate;

pub use self::chop::Chop;
pub use self::close::Close;
pub use self::delay::Delay;
pub use self::drop::Drop;
pub use self::garble::Garble;
pub use self::insert::Insert;
pub use self::repeat::Repeat;
pub use self::reset::Reset;
pub use self::stall::Stall;
pub use self::swap::Swap;
pub use self::throttle::Throttle;
pub use self::truncate::Truncate;
