// Package httpd has the listeners and the limits of what "lanyard serve" answers by HTTP: metrics, and
// the page. All of it is read-only.
package httpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// Limits of a listener: a request is one short GET. A local user who opens connections and sends
// nothing must not use up the service's file descriptors, which attach containers.
const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 30 * time.Second
	maxHeader      = 16 << 10
	maxConnections = 64
)

// retryInterval is the time from a failure to the next try to listen.
const retryInterval = 2 * time.Second

// Check returns an error if addr is not "unix:PATH" or "HOST:PORT", or if PATH is something else than a
// socket. [Listen] would fail each time.
func Check(addr string) error {
	path, isPath := strings.CutPrefix(addr, "unix:")
	if !isPath {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("%q: use unix:PATH or HOST:PORT", addr)
		}
		return nil
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%q: use an absolute path, such as unix:/run/lanyard/web.sock", addr)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists, and is not a socket: choose another path", path)
	}
	return nil
}

// Listen opens a listener: "unix:PATH", for root only, or "HOST:PORT".
func Listen(addr string) (net.Listener, error) {
	if err := Check(addr); err != nil {
		return nil, err
	}
	path, isPath := strings.CutPrefix(addr, "unix:")
	if !isPath {
		l, err := net.Listen("tcp", addr)
		return l, inUnit(err)
	}
	if err := removeUnused(path); err != nil {
		return nil, inUnit(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, inUnit(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeUnused removes a socket that a killed service left. A socket on which a program listens is
// another service's, or by a mistyped path systemd's for attaches: no container would start any more.
func removeUnused(path string) error {
	c, err := net.Dial("unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	case err == nil:
		c.Close()
		fallthrough
	case errors.Is(err, unix.EPROTOTYPE), errors.Is(err, unix.EAGAIN): // another type; a full backlog
		return fmt.Errorf("a program listens on %s: choose another path", path)
	}
	return err
}

// inUnit adds to an error of listening what lanyard.service allows, if it can be the cause.
func inUnit(err error) error {
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: lanyard.service allows a socket in /run/lanyard only (RestrictAddressFamilies=, "+
			"ProtectSystem=): use unix:/run/lanyard/NAME.sock", err)
	}
	return err
}

// CheckLocal is [Check] for what no other machine may read: HOST must be a loopback address, or
// "localhost".
func CheckLocal(addr string) error {
	if strings.HasPrefix(addr, "unix:") {
		return Check(addr)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q: use unix:PATH, or HOST:PORT with a loopback address, such as 127.0.0.1:8080", addr)
	}
	if !Loopback(host) {
		return fmt.Errorf("%q is not a loopback address: other machines could read the page: use 127.0.0.1, "+
			"or unix:PATH, and reach it by \"ssh -L\"", cmp.Or(host, addr))
	}
	return nil
}

// ListenLocal is [Listen] for what no other machine may read.
func ListenLocal(addr string) (net.Listener, error) {
	if err := CheckLocal(addr); err != nil {
		return nil, err
	}
	l, err := Listen(addr)
	if err != nil || l.Addr().Network() == "unix" {
		return l, err
	}
	// "localhost" is what /etc/hosts says.
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("%q is %s here, not a loopback address: use 127.0.0.1", addr, l.Addr()), l.Close())
	}
	return l, nil
}

// Keep listens and serves until ctx ends. What fails is logged, and tried again: the service attaches
// containers also without its page.
func Keep(ctx context.Context, log *slog.Logger, listen func() (net.Listener, error), serve func(net.Listener) error) {
	failed := "" // the last error that was logged
	for ctx.Err() == nil {
		l, err := listen()
		if err == nil {
			log.Info("serving by HTTP", "at", l.Addr())
			err = serve(l)
		}
		if err != nil && err.Error() != failed {
			failed = err.Error()
			log.Error("cannot serve by HTTP", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
}

// Loopback reports whether a host, without a port, is "localhost" or a loopback address.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// Serve answers by h until ctx ends, which also ends the requests. No answer takes longer than most.
func Serve(ctx context.Context, l net.Listener, h http.Handler, most time.Duration) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, WriteTimeout: most,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
