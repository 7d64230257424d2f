package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Time-outs of the HTTP server. An agent's connection leaves them behind when it is upgraded.
const (
	readHeaderTimeout = 10 * time.Second // a header comes in one piece; slower is an attack
	readTimeout       = 60 * time.Second // 64 MiB, the largest body that can be allowed, over 10 Mbit/s
	writeTimeout      = 90 * time.Second // beyond the longest query
	idleTimeout       = 2 * time.Minute
	maxHeader         = 32 << 10 // bytes; browsers stay below 8 KiB
)

// front is the HTTP server. It listens before anything else is there, so that a taken port is noticed before the
// database is touched and a health check has somebody to ask, and answers "starting" until it is opened.
type front struct {
	server  *http.Server
	handler atomic.Pointer[http.Handler]
	served  chan struct{}
}

func serveFront(l net.Listener, starting http.Handler, log *slog.Logger, failed chan<- error) *front {
	f := &front{served: make(chan struct{})}
	f.handler.Store(&starting)
	f.server = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*f.handler.Load()).ServeHTTP(w, r) }),
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients do wrong is no error of ours
	}
	go func() {
		defer close(f.served)
		if err := f.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve http: %w", err)
		}
	}()
	return f
}

// open lets requests through to h.
func (f *front) open(h http.Handler) { f.handler.Store(&h) }

// close stops listening and waits for requests under way, for those of agents' connections not: the gateway does.
func (f *front) close(ctx context.Context) error {
	err := f.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests are cut off: %w", err), f.server.Close())
	}
	<-f.served
	return err
}
