//! What is asked for in HTTP/1, and how does it end?

use httparse::{EMPTY_HEADER, Request, Response};

use super::{Details, text};

/// Headers looked at; the host is one of the first.
const MAX_HEADERS: usize = 64;

/// Reads the first request and the first response, whichever starts in this payload.
pub(super) fn read(payload: &[u8], told: &mut Details) {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    if payload.starts_with(b"HTTP/1.") {
        let mut response = Response::new(&mut headers);
        let _ = response.parse(payload);
        if let (0, Some(code)) = (told.http_status, response.code) {
            told.http_status = code;
        }
    } else if told.http_method.is_empty() && is_method(payload) {
        let mut request = Request::new(&mut headers);
        // An error or an end in the headers leaves what came before them.
        let _ = request.parse(payload);
        if let Request { method: Some(method), path: Some(path), version: Some(_), .. } = request {
            told.http_method = text(method.as_bytes());
            let is_whole = path.contains("://") || !path.starts_with('/');
            let host = if is_whole { &[] } else { host(payload) };
            told.http_url = text(&[host, path.as_bytes()].concat());
        }
    }
}

/// Whether a payload starts with what may be a method and a space: most do not.
fn is_method(payload: &[u8]) -> bool {
    let length = payload.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    (3..=17).contains(&length) && payload.get(length) == Some(&b' ')
}

/// The value of the header `Host`, even where the headers are not whole.
fn host(payload: &[u8]) -> &[u8] {
    let mut lines = payload.split(|&byte| byte == b'\n');
    let host = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"host:").then_some(value)
    });
    host.unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::{Details, read};

    fn told(payloads: &[&[u8]]) -> (String, String, u16) {
        let mut details = Details::default();
        for payload in payloads {
            read(payload, &mut details);
        }
        (details.http_method, details.http_url, details.http_status)
    }

    #[test]
    fn a_request_and_its_answer() {
        let request = b"GET /a?b=c HTTP/1.1\r\nAccept: */*\r\nhost: example.org:8080\r\n\r\n";
        let answer = b"HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n";
        let expected = ("GET".to_owned(), "example.org:8080/a?b=c".to_owned(), 404);
        assert_eq!(told(&[request, answer]), expected);
        // The first ones count.
        let more = b"POST /other HTTP/1.1\r\n\r\n";
        assert_eq!(told(&[request, more, answer, b"HTTP/1.1 200 OK\r\n\r\n"]), expected);
    }

    #[test]
    fn targets_that_have_their_host() {
        let proxied = b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n";
        assert_eq!(told(&[proxied]).1, "http://example.org/");
        let connect = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n";
        assert_eq!(told(&[connect]).1, "example.org:443");
        assert_eq!(told(&[b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"]).1, "*");
    }

    #[test]
    fn headers_that_are_cut_or_wrong_leave_the_request() {
        let cut = b"GET /x HTTP/1.1\r\nHost: example.org\r\nCookie: abc";
        assert_eq!(told(&[cut]), ("GET".into(), "example.org/x".into(), 0));
        assert_eq!(told(&[b"GET /x HTTP/1.1\r\n\0\r\n\r\n"]).0, "GET");
        assert_eq!(told(&[b"HTTP/1.0 302 "]).2, 302);
    }

    #[test]
    fn other_payloads_are_none() {
        for payload in [&b"GET"[..], b"", b"GET /unended", b"USER name\r\n", b"\x16\x03\x01"] {
            assert_eq!(told(&[payload]), Default::default(), "{payload:?}");
        }
    }
}
