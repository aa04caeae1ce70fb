package load

import (
	"bytes"
	"fmt"
	"strconv"
)

// answer is an HTTP answer; its body stands where it was received.
type answer struct {
	status int
	body   []byte
}

var (
	endOfHead = []byte("\r\n\r\n")
	lengthIs  = []byte("\r\nContent-Length: ")
	isChunked = []byte("\r\nTransfer-Encoding: chunked\r\n")
	lastChunk = []byte("\r\n0\r\n\r\n")
)

// maxAnswer bounds an answer: 1,000 tokens fit.
const maxAnswer = 16 << 20

// parse reads an answer as Go's servers write them. It says whether it is
// whole; chunks are joined in place, and only then.
func parse(b []byte) (answer, bool, error) {
	if len(b) > maxAnswer {
		return answer{}, false, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	head := bytes.Index(b, endOfHead)
	if head < 0 {
		return answer{}, false, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) || len(b) < 12 {
		return answer{}, false, fmt.Errorf("no HTTP/1.1 answer: %.40q", b)
	}
	status, err := strconv.Atoi(string(b[9:12]))
	if err != nil {
		return answer{}, false, fmt.Errorf("no HTTP/1.1 answer: %.40q", b)
	}
	fields, rest := b[:head+2], b[head+len(endOfHead):]
	if at := bytes.Index(fields, lengthIs); at >= 0 {
		size, digits := 0, fields[at+len(lengthIs):]
		for _, d := range digits[:bytes.IndexByte(digits, '\r')] {
			if d < '0' || d > '9' || size > maxAnswer {
				return answer{}, false, fmt.Errorf("no length: %.20q", digits)
			}
			size = 10*size + int(d-'0')
		}
		if len(rest) > size {
			return answer{}, false, fmt.Errorf("%d bytes more than the answer's length", len(rest)-size)
		}
		return answer{status, rest}, len(rest) == size, nil
	}
	if !bytes.Contains(fields, isChunked) {
		return answer{}, false, fmt.Errorf("an answer of unknown length: %.200q", fields)
	}
	if !bytes.HasSuffix(rest, lastChunk) {
		return answer{}, false, nil
	}
	body, err := joined(rest)
	return answer{status, body}, true, err
}

// joined takes the framing out of a chunked body.
func joined(b []byte) ([]byte, error) {
	out := b[:0]
	for {
		line := bytes.Index(b, []byte("\r\n"))
		if line < 0 {
			return nil, fmt.Errorf("a chunk without a size")
		}
		size, err := strconv.ParseUint(string(b[:line]), 16, 31)
		if err != nil {
			return nil, fmt.Errorf("a chunk's size: %w", err)
		}
		b = b[line+2:]
		if size == 0 {
			return out, nil
		}
		if uint64(len(b)) < size+2 {
			return nil, fmt.Errorf("a chunk of %d bytes has %d", size, len(b))
		}
		out = append(out, b[:size]...)
		b = b[size+2:]
	}
}

// tokens checks that an answer holds the tokens that were asked for, and keeps
// some.
func (g *generator) tokens(body []byte) error {
	count, rest := 0, body
	for {
		at := bytes.Index(rest, g.mark)
		if at < 0 {
			break
		}
		rest = rest[at+len(g.mark):]
		end := bytes.IndexByte(rest, '"')
		if end < 40 || bytes.Count(rest[:end], []byte(".")) != g.cfg.Answer.Dots {
			return fmt.Errorf("no token in the answer: %.300s", body)
		}
		count++
		g.seen++
		if g.cfg.KeepEvery > 0 && g.seen%g.cfg.KeepEvery == 0 && len(g.res.Kept) < maxKept {
			g.res.Kept = append(g.res.Kept, string(rest[:end]))
		}
		rest = rest[end:]
	}
	if count != g.cfg.Answer.Tokens {
		return fmt.Errorf("%d tokens in the answer, want %d: %.300s", count, g.cfg.Answer.Tokens, body)
	}
	return nil
}

// maxKept bounds what is kept.
const maxKept = 4096
