package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/unixsock"
)

const (
	// DrainTime bounds the end of a socket. The daemon as a whole has five
	// seconds, and other parts end after it.
	DrainTime = 4 * time.Second
	// lastCall is how long requests are taken that were on their way when the
	// end began; each of their answers closes its connection.
	lastCall = 100 * time.Millisecond
	// workTime is how long handlers may go on after the end began; then their
	// contexts end, so that a long answer is out before DrainTime.
	workTime = 3 * time.Second
	// readTime bounds a request from its first byte to its last.
	readTime = 10 * time.Second
	// WriteTime bounds all from there to the end of the answer: a batch of 1,000
	// RSA-4096 signatures fits.
	WriteTime = 30 * time.Second
)

// NewServer is an http.Server with the limits of a Unix socket: nobody holds a
// connection or memory for long without asking for something. Its handlers find
// the caller in the context (unixsock.PeerFrom). A nil logger discards.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ConnContext:       unixsock.ConnContext,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       readTime,
		WriteTimeout:      WriteTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelError),
	}
}

// Config is what is served.
type Config struct {
	// Name is that of the socket, for errors and the log.
	Name string
	// Handler answers. The contexts of its requests end when the server does,
	// not at once: some seconds after the end has begun.
	Handler http.Handler
	// Logger learns of callers on whom the socket was closed; nil discards it.
	Logger *slog.Logger
}

// Serve answers a socket until the context ends, then drains it within
// DrainTime and closes the listener: nobody can connect any more, and whoever
// had connected with a request on its way gets an answer. It returns nil then,
// and the listener's error where that breaks.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	base, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var draining atomic.Bool
	srv := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() {
			w.Header().Set("Connection", "close")
		}
		cfg.Handler.ServeHTTP(w, r)
	}), cfg.Logger)
	srv.BaseContext = func(net.Listener) context.Context { return base }
	var idle quiet
	srv.ConnState = idle.note

	queue := &drainer{Listener: ln}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(queue) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve sign socket %q: %w", cfg.Name, errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	draining.Store(true)
	timer := time.AfterFunc(workTime, stopWork)
	defer timer.Stop()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTime)
	defer cancel()
	err := queue.drain(lastCall)
	<-served // those who were waiting to be accepted have been
	idle.hush(end)
	if slow := srv.Shutdown(end); slow != nil {
		cfg.Logger.Warn("sign socket closed on callers that sent nothing", "socket", cfg.Name, "error", slow)
		err = errors.Join(err, srv.Close())
	}
	if err != nil {
		return fmt.Errorf("close sign socket %q: %w", cfg.Name, err)
	}
	return nil
}
