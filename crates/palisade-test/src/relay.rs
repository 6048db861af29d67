//! A TCP address that leads somewhere, and later somewhere else: what a virtual address or a cluster's service is to a
//! client whose server fails over.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A relay on loopback. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Leads to a port of loopback.
    ///
    /// # Errors
    /// When no port is left.
    pub async fn to(port: u16) -> Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (target, _) = watch::channel(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        let task = tokio::spawn(accept(listener, Arc::new(target.clone())));
        Ok(Relay { address, target, task })
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Leads to another port from now on; what leads elsewhere is cut.
    pub fn lead_to(&self, port: u16) {
        self.target.send_replace(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }

    /// Leads nowhere: what is there is cut, and who connects is cut at once.
    pub fn cut(&self) {
        self.target.send_replace(None);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, target: Arc<watch::Sender<Option<SocketAddr>>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut target = target.subscribe();
        tokio::spawn(async move {
            let Some(address) = *target.borrow_and_update() else { return };
            let Ok(mut server) = TcpStream::connect(address).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = target.changed() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server that says one byte to each.
    async fn server(says: u8) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(&[says]).await.unwrap();
                open.push(stream);
            }
        });
        port
    }

    #[tokio::test]
    async fn it_leads_elsewhere_and_cuts_what_was_there() {
        let (one, two) = (server(1).await, server(2).await);
        let relay = Relay::to(one).await.unwrap();
        let connect = async || TcpStream::connect(("127.0.0.1", relay.port())).await.unwrap();
        let mut first = connect().await;
        assert_eq!(first.read_u8().await.unwrap(), 1);
        relay.lead_to(two);
        assert!(first.read_u8().await.is_err(), "cut");
        assert_eq!(connect().await.read_u8().await.unwrap(), 2);
        relay.cut();
        assert!(connect().await.read_u8().await.is_err());
    }
}
