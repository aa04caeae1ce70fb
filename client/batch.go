package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
)

// Result is what came of one request of a batch: a token, or Err, which says
// why there is none and holds an *api.Problem where the daemon refused it.
type Result struct {
	api.SignResponse
	Err error
}

// batchSize is what one call holds at most, beside api.MaxBatch: half of what
// the daemon takes.
const batchSize = api.MaxBatchBytes / 2

// SignBatch asks for many tokens at a time, which costs less than one by one.
// The results are in the order of the requests, as many as these, and each is
// judged alone: look at the Err of each. Requests that have to wait (429, 503)
// are repeated while the context allows. Where that has no deadline, the
// Config's Timeout bounds each of the calls that it takes, and the repetitions.
//
// The error says that the daemon could not be asked to the end. The results
// then tell what came before; those without a token hold the same error.
func (c *Client) SignBatch(ctx context.Context, reqs []api.SignRequest) ([]Result, error) {
	const op = "sign batch"
	out := make([]Result, len(reqs))
	docs := make([]json.RawMessage, len(reqs))
	var left []int
	for i := range reqs {
		doc, err := encoded(&reqs[i])
		if err != nil {
			out[i].Err = c.failed(op, err)
			continue
		}
		docs[i], left = doc, append(left, i)
	}
	deadline, bounded := ctx.Deadline()
	for round := 0; len(left) > 0; round++ {
		again, err := c.signRound(ctx, docs, left, out)
		if err != nil {
			for i := range out {
				if out[i].Token == "" && (out[i].Err == nil || Retryable(out[i].Err)) {
					out[i].Err = err
				}
			}
			return out, err
		}
		if len(again) == 0 {
			break
		}
		if !bounded {
			deadline, bounded = time.Now().Add(c.timeout), true
		}
		wait := pause(out[again[0]].Err, round)
		if time.Until(deadline) <= wait || sleep(ctx, wait) != nil {
			break // each of them says why
		}
		left = again
	}
	return out, nil
}

// signRound asks for the requests whose numbers are left, in as few calls as
// they need, and returns the numbers of those that may be asked for again.
func (c *Client) signRound(ctx context.Context, docs []json.RawMessage, left []int, out []Result) (again []int, err error) {
	for len(left) > 0 {
		n, size := 0, 0
		for n < len(left) && n < api.MaxBatch && (n == 0 || size+len(docs[left[n]]) < batchSize) {
			size += len(docs[left[n]]) + 1
			n++
		}
		results, err := c.signCall(ctx, docs, left[:n])
		if err != nil {
			return nil, err
		}
		for k, i := range left[:n] {
			out[i] = results[k]
			if out[i].Err == nil {
				continue
			}
			out[i].Err = c.failed("sign batch", out[i].Err)
			if Retryable(out[i].Err) {
				again = append(again, i)
			}
		}
		left = left[n:]
	}
	return again, nil
}

func (c *Client) signCall(ctx context.Context, docs []json.RawMessage, numbers []int) ([]Result, error) {
	f := newFrame()
	defer f.release()
	f.buf.WriteString(`{"requests":[`)
	for k, i := range numbers {
		if k > 0 {
			f.buf.WriteByte(',')
		}
		f.buf.Write(docs[i])
	}
	f.buf.WriteString("]}")
	a, err := c.do(ctx, "sign batch", f.post("/v1/sign/batch"))
	if err != nil {
		return nil, err
	}
	defer a.release()
	results, err := readResults(a.body, len(numbers))
	if err != nil {
		return nil, c.failed("sign batch", err)
	}
	return results, nil
}

// encoded is a request as an entry of a batch. One that is too long is refused
// here as the daemon would: sent, it could take the others with it.
func encoded(req *api.SignRequest) (json.RawMessage, error) {
	var buf bytes.Buffer
	if err := encodeRequest(&buf, req); err != nil {
		return nil, err
	}
	if buf.Len() > api.MaxSignBytes {
		return nil, api.NewProblem(api.TooLarge, fmt.Sprintf("the request has more than %d bytes", api.MaxSignBytes))
	}
	return buf.Bytes(), nil
}
