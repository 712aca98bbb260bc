//! What does a `ClientHello` for the tests look like?

/// Builds messages, field by field. Nothing that is not asked for is in it.
#[derive(Clone)]
pub(super) struct Builder {
    version: u16,
    cookie: Option<Vec<u8>>,
    ciphers: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Builder {
    pub fn new() -> Self {
        Self { version: 0x0303, cookie: None, ciphers: Vec::new(), extensions: Vec::new() }
    }

    pub fn version(mut self, version: u16) -> Self {
        self.version = version;
        self
    }

    /// Only DTLS has one.
    pub fn cookie(mut self, cookie: &[u8]) -> Self {
        self.cookie = Some(cookie.into());
        self
    }

    pub fn ciphers(mut self, ciphers: &[u16]) -> Self {
        self.ciphers = ciphers.into();
        self
    }

    pub fn extension(mut self, kind: u16, content: &[u8]) -> Self {
        self.extensions.push((kind, content.into()));
        self
    }

    pub fn server_name(self, name: &[u8]) -> Self {
        let length = name.len() as u8;
        self.extension(0, &[&[0, length + 3, 0, 0, length], name].concat())
    }

    /// Changes the content of an extension that is there.
    pub fn set(&mut self, kind: u16, content: &[u8]) {
        for extension in self.extensions.iter_mut().filter(|extension| extension.0 == kind) {
            extension.1 = content.into();
        }
    }

    /// The message behind its type and length.
    pub fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([0x5a; 32]);
        body.push(0);
        if let Some(cookie) = &self.cookie {
            body.push(cookie.len() as u8);
            body.extend(cookie);
        }
        body.extend((self.ciphers.len() as u16 * 2).to_be_bytes());
        body.extend(self.ciphers.iter().flat_map(|cipher| cipher.to_be_bytes()));
        body.extend([1, 0]);
        if !self.extensions.is_empty() {
            let length: usize = self.extensions.iter().map(|(_, content)| content.len() + 4).sum();
            body.extend((length as u16).to_be_bytes());
            for (kind, content) in &self.extensions {
                body.extend(kind.to_be_bytes());
                body.extend((content.len() as u16).to_be_bytes());
                body.extend(content);
            }
        }
        body
    }

    /// The message as QUIC has it.
    pub fn message(&self) -> Vec<u8> {
        let body = self.body();
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
    }

    /// The message as TLS has it, in records of this many bytes.
    pub fn records(&self, size: usize) -> Vec<u8> {
        let mut records = Vec::new();
        for fragment in self.message().chunks(size) {
            records.extend([22, 3, 1]);
            records.extend((fragment.len() as u16).to_be_bytes());
            records.extend(fragment);
        }
        records
    }
}

/// The example of JA4's specification, with GREASE where Chrome has it.
pub(super) fn specified() -> Builder {
    let ciphers = [
        0x8a8a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
        0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
    ];
    let order = [
        0x2a2a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
        0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x9a9a, 0x0015,
    ];
    order.iter().fold(Builder::new().ciphers(&ciphers), |builder, &kind| match kind {
        0x0000 => builder.server_name(b"example.org"),
        0x000a => builder.extension(kind, &[0, 4, 0, 29, 0, 23]),
        0x000b => builder.extension(kind, &[1, 0]),
        0x000d => builder.extension(kind, &[0, 16, 4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1]),
        0x0010 => builder.extension(kind, b"\0\x0c\x02h2\x08http/1.1"),
        0x002b => builder.extension(kind, &[6, 0x7a, 0x7a, 3, 4, 3, 3]),
        _ => builder.extension(kind, &[]),
    })
}
