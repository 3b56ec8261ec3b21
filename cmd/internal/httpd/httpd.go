// Package httpd has the listeners and the limits of what "lanyard serve" answers by HTTP: metrics, and
// the page. All of it is read-only.
package httpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// Limits of a listener: a request is one short GET. A local user who opens connections and sends
// nothing must not use up the service's file descriptors, which attach containers.
const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 30 * time.Second
	maxHeader      = 16 << 10
	maxConnections = 64
)

// Listen opens a listener: "unix:PATH", for root only, or "HOST:PORT".
func Listen(addr string) (net.Listener, error) {
	path, isPath := strings.CutPrefix(addr, "unix:")
	if !isPath {
		return net.Listen("tcp", addr)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s exists, and is not a socket: choose another path", path)
	}
	// One that a killed service left.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// ListenLocal is Listen for what no other machine may read: HOST must be a loopback address, or
// "localhost".
func ListenLocal(addr string) (net.Listener, error) {
	if strings.HasPrefix(addr, "unix:") {
		return Listen(addr)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%q: use unix:PATH, or HOST:PORT with a loopback address, such as 127.0.0.1:8080", addr)
	}
	if !Loopback(host) {
		return nil, fmt.Errorf("%q is not a loopback address: other machines could read the page: use 127.0.0.1, "+
			"or unix:PATH, and reach it by \"ssh -L\"", cmp.Or(host, addr))
	}
	l, err := Listen(addr)
	if err != nil {
		return nil, err
	}
	// "localhost" is what /etc/hosts says.
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("%q is %s here, not a loopback address: use 127.0.0.1", host, l.Addr()), l.Close())
	}
	return l, nil
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
