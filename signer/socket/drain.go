package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// drainer is a listener that can take its path away, so that nobody new
// connects, and still accept those who connected before. Closing a listening
// Unix socket at once would reset them with their requests unread.
type drainer struct {
	net.Listener

	once     sync.Once
	closeErr error

	mu   sync.Mutex
	rest *net.UnixListener // a second handle on the same queue
}

// drain closes the listener and lets Accept go on with what was queued until then.
func (d *drainer) drain(wait time.Duration) error {
	if ln, ok := d.Listener.(interface{ File() (*os.File, error) }); ok {
		rest, err := duplicate(ln, time.Now().Add(wait))
		if err != nil {
			return errors.Join(fmt.Errorf("keep the queue: %w", err), d.Close())
		}
		d.mu.Lock()
		d.rest = rest
		d.mu.Unlock()
	}
	return d.Close()
}

// duplicate is a second handle on a listening socket, good until a time.
func duplicate(ln interface{ File() (*os.File, error) }, until time.Time) (*net.UnixListener, error) {
	f, err := ln.File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // FileListener has a handle of its own
	again, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	rest, ok := again.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a %T is no Unix listener", again), again.Close())
	}
	if err := rest.SetDeadline(until); err != nil {
		return nil, errors.Join(err, rest.Close())
	}
	return rest, nil
}

func (d *drainer) Accept() (net.Conn, error) {
	c, err := d.accept()
	if err != nil {
		return nil, err
	}
	return newConn(c), nil
}

func (d *drainer) accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err == nil || !errors.Is(err, net.ErrClosed) {
		return conn, err
	}
	d.mu.Lock()
	rest := d.rest
	d.mu.Unlock()
	if rest == nil {
		return nil, err
	}
	for {
		conn, restErr := rest.Accept()
		if restErr == nil {
			return conn, nil
		}
		// The time is up. Where this process was kept from running, it may have
		// been too short for those in the queue; nobody joins them any more.
		if !errors.Is(restErr, os.ErrDeadlineExceeded) || !queued(rest) || rest.SetDeadline(time.Now().Add(lastCall)) != nil {
			return nil, errors.Join(err, rest.Close())
		}
	}
}

func (d *drainer) Close() error {
	d.once.Do(func() { d.closeErr = d.Listener.Close() })
	return d.closeErr
}
