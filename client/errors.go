package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/keyturn/keyturn/api"
)

// errNotKeyturn is an answer that keyturn does not give.
var errNotKeyturn = errors.New("the answer is not one of keyturn's: is it keyturn's socket?")

// Error is why a call failed. errors.As finds in it the *api.Problem that the
// daemon answered with, where it did; errors.Is the context's error, where it
// was the context that ended the call.
type Error struct {
	// Op is what was asked for: sign, sign batch, profiles or key set.
	Op string
	// Socket is the path of the socket.
	Socket string
	// Err is the cause.
	Err error
}

func (e *Error) Error() string {
	return fmt.Sprintf("keyturn: %s: %s", e.Op, explain(e.Socket, e.Err))
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same call may succeed later without anybody
// changing it: the daemon is away, starting, stopping, busy or cut off from
// Vault. What the daemon refuses, it refuses again.
func Retryable(err error) bool {
	var p *api.Problem
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, errClosed):
		return false
	case errors.As(err, &p):
		return p.Status == 429 || p.Status == 503
	}
	return errors.Is(err, context.DeadlineExceeded) || away(err)
}

// away reports whether nobody answered, or not to the end.
func away(err error) bool {
	for _, cause := range []error{
		fs.ErrNotExist, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EAGAIN,
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrDeadlineExceeded,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// explain says what is wrong and how to mend it, where the kernel's words do not.
func explain(socket string, err error) string {
	const another = "; Config.Socket or " + SocketEnv + " names another"
	var p *api.Problem
	switch {
	case errors.As(err, &p), errors.Is(err, errNotKeyturn), errors.Is(err, errClosed):
	case errors.Is(err, fs.ErrNotExist):
		return "there is no socket " + socket + ": is the daemon running? (" + err.Error() + another + ")"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at " + socket + ": the daemon has stopped (" + err.Error() + another + ")"
	case errors.Is(err, fs.ErrPermission):
		return "this program may not use " + socket + ": its user has to be in the group of the socket (" + err.Error() + another + ")"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "the daemon at " + socket + " did not answer in time: " + err.Error()
	case away(err):
		return "the daemon at " + socket + " went away: " + err.Error()
	}
	return err.Error()
}

// failed is the error of a call.
func (c *Client) failed(op string, err error) error {
	return &Error{Op: op, Socket: c.pool.socket, Err: err}
}

// ended is what a call is told that its context, or its own time, has ended,
// with the last thing that was in its way.
func ended(why, last error) error {
	switch {
	case last == nil:
		return why
	case errors.Is(last, why):
		return last
	}
	return fmt.Errorf("%w; %w", last, why)
}
