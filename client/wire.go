package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
)

const (
	// maxAnswer bounds an answer, in bytes: 1,000 tokens with all the claims
	// that a batch has room for are less.
	maxAnswer = 32 << 20
	// maxHeaders bounds the header lines of an answer.
	maxHeaders = 100
	// room is what a request's header takes at most in front of its body.
	room = 512
	// A buffer that has grown beyond this is not kept for the next call.
	maxKept = 64 << 10
)

// Buffers live as long as a call: a frame holds the request, an answer the body.
var (
	frames  = sync.Pool{New: func() any { return new(frame) }}
	answers = sync.Pool{New: func() any { return new(answer) }}
)

// frame is a request as it goes over the wire: room for the header, the body.
type frame struct{ buf bytes.Buffer }

func newFrame() *frame {
	f := frames.Get().(*frame) // the pool holds nothing else
	f.buf.Reset()
	var empty [room]byte
	f.buf.Write(empty[:])
	return f
}

func (f *frame) release() {
	if f.buf.Cap() <= maxKept {
		frames.Put(f)
	}
}

// encodeRequest adds a request, as JSON that is not made safe for HTML: claims
// arrive as they were given. What is no UTF-8 would arrive as something else.
func encodeRequest(buf *bytes.Buffer, req *api.SignRequest) error {
	texts := [2]string{req.Profile, req.Subject}
	for _, text := range append(texts[:], req.Audience...) {
		if !utf8.ValidString(text) {
			return api.NewProblem(api.InvalidRequest, fmt.Sprintf("%q is not UTF-8", text))
		}
	}
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(req); err != nil {
		return fmt.Errorf("the request cannot be written as JSON: %w", err)
	}
	return nil
}

// post and get complete the request; the bytes are good until release.
func (f *frame) post(path string) []byte {
	var header [room]byte
	h := append(header[:0], "POST "...)
	h = append(h, path...)
	h = append(h, " HTTP/1.1\r\nHost: keyturn\r\nContent-Type: application/json\r\nContent-Length: "...)
	h = strconv.AppendInt(h, int64(f.buf.Len()-room), 10)
	h = append(h, "\r\n\r\n"...)
	whole := f.buf.Bytes()[room-len(h):]
	copy(whole, h)
	return whole
}

func (f *frame) get(path string) []byte {
	f.buf.Reset()
	f.buf.WriteString("GET " + path + " HTTP/1.1\r\nHost: keyturn\r\n\r\n")
	return f.buf.Bytes()
}

// answer is what came back.
type answer struct {
	status     int
	retryAfter string
	keep       bool // the connection carries more
	body       []byte
	buf        bytes.Buffer
}

func (a *answer) release() {
	a.body = nil
	if a.buf.Cap() <= maxKept {
		answers.Put(a)
	}
}

var errNotHTTP = fmt.Errorf("not HTTP: %w", errNotKeyturn)

// readAnswer reads one answer of HTTP/1.1 (RFC 9112) off a connection, to its
// last byte. A connection that ends before its first is io.EOF, later
// io.ErrUnexpectedEOF.
func readAnswer(r *bufio.Reader) (*answer, error) {
	a := answers.Get().(*answer) // the pool holds nothing else
	a.buf.Reset()
	err := a.read(r)
	if err != nil {
		a.release()
		return nil, err
	}
	a.body = a.buf.Bytes()
	return a, nil
}

func (a *answer) read(r *bufio.Reader) error {
	for {
		line, err := readLine(r)
		if errors.Is(err, io.ErrUnexpectedEOF) && len(line) == 0 {
			return io.EOF
		}
		if err != nil {
			return err
		}
		if a.status, err = parseStatus(line); err != nil {
			return err
		}
		h, err := readHeader(r)
		switch {
		case err != nil:
			return err
		case a.status < 200 && a.status != 101: // an answer before the answer (RFC 9110 §15.2)
			continue
		}
		a.retryAfter, a.keep = h.retryAfter, !h.close && (h.chunked || h.length >= 0)
		switch {
		case h.chunked:
			return a.readChunks(r)
		case h.length > maxAnswer:
			return tooLong()
		case h.length >= 0:
			return a.readSome(r, h.length)
		}
		return a.readRest(r)
	}
}

// parseStatus reads HTTP/1.1 200 OK.
func parseStatus(line []byte) (int, error) {
	const most = len("HTTP/1.1 200")
	if len(line) < most || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) || len(line) > most && line[most] != ' ' {
		return 0, errNotHTTP
	}
	status := 0
	for _, c := range line[9:most] {
		if c < '0' || c > '9' {
			return 0, errNotHTTP
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return 0, errNotHTTP
	}
	return status, nil
}

// header is what matters of the header: how long the body is, whether the
// connection goes on, and when to come back.
type header struct {
	length         int64 // -1: not told
	chunked, close bool
	retryAfter     string
}

func readHeader(r *bufio.Reader) (header, error) {
	h := header{length: -1}
	for range maxHeaders {
		line, err := readLine(r)
		if err != nil {
			return h, err
		}
		if len(line) == 0 {
			if h.chunked && h.length >= 0 { // two lengths are two readings (RFC 9112 §6.3)
				return h, errNotHTTP
			}
			return h, nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 {
			return h, errNotHTTP
		}
		if err := h.note(line[:colon], bytes.TrimSpace(line[colon+1:])); err != nil {
			return h, err
		}
	}
	return h, errNotHTTP
}

func (h *header) note(name, value []byte) error {
	switch {
	case is(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil || h.length >= 0 && h.length != int64(n) || value[0] == '+' {
			return errNotHTTP
		}
		h.length = int64(n)
	case is(name, "transfer-encoding"):
		if h.chunked || !is(value, "chunked") {
			return errNotHTTP
		}
		h.chunked = true
	case is(name, "connection"):
		h.close = h.close || is(value, "close")
	case is(name, "retry-after"):
		h.retryAfter = string(value)
	}
	return nil
}

// is compares names of headers, whose case does not count; name is in lower case.
func is(b []byte, name string) bool {
	return len(b) == len(name) && bytes.EqualFold(b, []byte(name))
}

// readLine is the next line without its end. It is good until the next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return line, errNotHTTP
	case errors.Is(err, io.EOF):
		return line, io.ErrUnexpectedEOF
	case err != nil:
		return line, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// readChunks reads a body whose length is told piece by piece (RFC 9112 §7.1).
func (a *answer) readChunks(r *bufio.Reader) error {
	for {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte(";")) // extensions say nothing to us
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		switch {
		case err != nil:
			return errNotHTTP
		case n == 0:
			_, err := readHeader(r) // trailers, up to the empty line
			return err
		case int64(a.buf.Len())+int64(n) > maxAnswer:
			return tooLong()
		}
		if err := a.readSome(r, int64(n)); err != nil {
			return err
		}
		if end, err := readLine(r); err != nil {
			return err
		} else if len(end) != 0 {
			return errNotHTTP
		}
	}
}

func (a *answer) readSome(r *bufio.Reader, n int64) error {
	got, err := io.CopyN(&a.buf, r, n)
	if errors.Is(err, io.EOF) || err == nil && got < n {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readRest reads a body that ends with its connection.
func (a *answer) readRest(r *bufio.Reader) error {
	n, err := io.Copy(&a.buf, io.LimitReader(r, maxAnswer+1))
	if err == nil && n > maxAnswer {
		return tooLong()
	}
	return err
}

func tooLong() error { return fmt.Errorf("it is longer than %d bytes: %w", maxAnswer, errNotKeyturn) }
