//! Serves a small synthetic cluster on a port that the kernel chooses, until it is interrupted.
//!
//! `cargo run -p backstop-mock --example serve -- 15 [tablespace location …]`

use backstop_mock::Server;
use backstop_mock::config::{Config, TablespaceConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let version = arguments.next().as_deref().unwrap_or("18").parse()?;
    let tablespaces = (16400..).zip(arguments).map(|(oid, location)| TablespaceConfig { oid, location, size: 1 << 20 });
    let config = Config { version, tablespaces: tablespaces.collect(), ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::new(config)?;
        let listener = server.listen(([127, 0, 0, 1], 0).into())?;
        println!("listening on {}", listener.local_addr()?);
        listener.run().await?;
        Ok(())
    })
}
