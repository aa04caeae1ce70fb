package signer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/unixsock"
)

const (
	// drainTime bounds the end of a sign socket. The daemon as a whole has five
	// seconds, and other parts end after it.
	drainTime = 4 * time.Second
	// lastCall is how long requests are taken that were on their way when the
	// end began; each of their answers closes its connection.
	lastCall = 100 * time.Millisecond
	// batchTime is how long a batch may go on signing; the rest of its entries
	// are answered with unavailable, so that the answer is out before drainTime.
	batchTime = 3 * time.Second
	// readTime bounds a request from its first byte to its last, writeTime all
	// from there to the end of the answer: a batch of 1,000 RSA-4096 signatures fits.
	readTime, writeTime = 10 * time.Second, 30 * time.Second
)

// NewServer is an http.Server with the limits of a sign socket: nobody holds a
// connection or memory for long without asking for something.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ConnContext:       unixsock.ConnContext,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelError),
	}
}

// Serve answers a sign socket until the context ends, then drains it within
// drainTime and closes the listener: nobody can connect any more, and whoever
// had connected with a request on its way gets an answer.
func (s *Signer) Serve(ctx context.Context, ln net.Listener, socket string) error {
	base, stopBatches := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBatches()
	var draining atomic.Bool
	handler := s.Handler(socket)
	srv := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	}), s.log)
	srv.BaseContext = func(net.Listener) context.Context { return base }
	var idle quiet
	srv.ConnState = idle.note

	queue := &drainer{Listener: ln}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(queue) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve sign socket %q: %w", socket, errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	draining.Store(true)
	timer := time.AfterFunc(batchTime, stopBatches)
	defer timer.Stop()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := queue.drain(lastCall)
	<-served // those who were waiting to be accepted have been
	idle.hush(end)
	if slow := srv.Shutdown(end); slow != nil {
		s.log.Warn("sign socket closed on callers that sent nothing", "socket", socket, "error", slow)
		err = errors.Join(err, srv.Close())
	}
	if err != nil {
		return fmt.Errorf("close sign socket %q: %w", socket, err)
	}
	return nil
}

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
	return &conn{Conn: c}, nil
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
