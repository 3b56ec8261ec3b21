// Package etcdstore keeps leases in an etcd cluster that several hosts share.
//
// Each method that changes something is one transaction, which checks that nothing it depends on
// has changed since it was read, and is repeated if something has. What a host holds ends with the
// host's etcd lease, its session, which [Store.Keep] keeps alive. A transaction that claims an address
// requires the session by the revision of its key. No decision about a held address depends on a
// clock: an etcd server that was restarted gives leases their whole time again, and clocks of hosts
// differ. Clocks only measure how long an address stays quarantined or declined.
package etcdstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/lanyard-net/lanyard/ipam"
)

// Host identifies a host among those that share the store.
type Host struct {
	ID   string // unique, also after a boot and among clones of a machine
	Name string // for people
	// Machine is the same after a boot. "" is ID.
	Machine string
}

// Store is a connection to an etcd cluster. It is safe for concurrent use.
type Store struct {
	// Now returns the time that quarantines are measured by. Set it before the first use; nil means
	// time.Now.
	Now func() time.Time

	client *clientv3.Client
	config Config
	prefix string
	host   Host
	turn   chan struct{} // one change of this process at a time: others would only repeat theirs
	outage *outage       // the last one, for those that waited for their turn during it
	kept   *atomic.Bool  // Keep runs in this process

	history *history
	renewal bool // this is the Store for renew, see forRenewal
	// renewing is the etcd lease of a session that is being begun, in the Store for renew; else 0.
	renewing clientv3.LeaseID
}

var _ ipam.Shared = (*Store)(nil)

// The limits of a method that reaches no member of the cluster, and of one attempt at one member.
const (
	methodTimeout  = 4 * time.Second
	attemptTimeout = 1500 * time.Millisecond
	firstPause     = 10 * time.Millisecond
	maxPause       = 200 * time.Millisecond
)

// Open returns the store in a cluster. It connects only if the configuration has a user. It reads the
// files of TLS, and each connection reads them again.
func Open(c Config, h Host) (*Store, error) {
	secret, err := c.tls()
	if err != nil {
		return nil, err
	}
	var options []grpc.DialOption
	if secret != nil {
		options = append(options, grpc.WithTransportCredentials(renewed{credentials.NewTLS(secret), c}))
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: secret, Username: c.User, Password: c.Password,
		DialTimeout: methodTimeout, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		DialOptions: options, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, c.explain(err)
	}
	return &Store{client: client, config: c, prefix: c.prefix(), host: h, turn: make(chan struct{}, 1),
		outage: &outage{}, kept: new(atomic.Bool), history: newHistory()}, nil
}

// Close implements [ipam.Shared].
func (s *Store) Close() error {
	if err := s.client.Close(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s *Store) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// try runs f until it succeeds or fails for a reason other than the connection. An attempt that
// failed in an unknown state is repeated, too: f reads again what is left to do.
func (s *Store) try(ctx context.Context, f func(context.Context) error) error {
	whole, cancel := context.WithTimeout(ctx, methodTimeout)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		if err := ctx.Err(); err != nil {
			return s.config.explain(err)
		}
		attempt, cancel := context.WithTimeout(clientv3.WithRequireLeader(whole), attemptTimeout)
		err := f(attempt)
		cancel()
		var own *ownError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &own):
			return own.error
		case !temporary(err):
			return s.config.explain(err)
		}
		select {
		case <-time.After(pause):
		case <-whole.Done():
			if ctx.Err() == nil {
				return s.config.unreachable(err)
			}
		}
	}
}

// ownError is an error that is not the client's: the answer of the store, or damage.
type ownError struct{ error }

// temporary reports whether another attempt, perhaps at another member, may succeed. A busy server
// sends the deadline of the attempt as an unknown error.
func temporary(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrCompacted) ||
		status.Convert(err).Message() == context.DeadlineExceeded.Error() {
		return true
	}
	code := status.Code(err)
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		code = e.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// view is what a transaction has read: the keys of each read, at one revision.
type view struct {
	cluster  uint64
	revision int64
	kvs      [][]*mvccpb.KeyValue
}

func viewOf(resp *clientv3.TxnResponse) view {
	v := view{cluster: resp.Header.ClusterId, revision: resp.Header.Revision}
	for _, r := range resp.Responses {
		v.kvs = append(v.kvs, r.GetResponseRange().GetKvs())
	}
	return v
}

// write is what a transaction writes if the conditions hold.
type write struct {
	conditions []clientv3.Cmp
	then       []clientv3.Op
}

// change reads, lets decide say what to write, and writes it if the conditions hold. If they do not,
// it begins again with what is there then. decide returns nil if there is nothing to write.
func (s *Store) change(
	ctx context.Context, reads []clientv3.Op, decide func(context.Context, view) (*write, error),
) error {
	began := time.Now()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return s.config.explain(ctx.Err())
	case <-time.After(methodTimeout): // those before it get no answer, either
		return s.config.unreachable(context.DeadlineExceeded)
	}
	if began.Before(s.outage.at) {
		return s.outage.err
	}
	err := s.try(ctx, func(ctx context.Context) error {
		resp, err := s.commit(s.client.Txn(ctx).Then(reads...))
		for err == nil {
			w, derr := decide(ctx, viewOf(resp))
			if derr != nil || w == nil {
				return derr
			}
			resp, err = s.commit(s.client.Txn(ctx).If(w.conditions...).Then(w.then...).Else(reads...))
			switch {
			case err == nil && resp.Succeeded:
				return nil
			case errors.Is(err, rpctypes.ErrLeaseNotFound) && s.renewing == 0: // the session has just ended
				resp, err = s.commit(s.client.Txn(ctx).Then(reads...))
			}
		}
		return err
	})
	if errors.Is(err, ipam.ErrOutOfReach) {
		s.outage.at, s.outage.err = time.Now(), err
	}
	return err
}

// outage is when and why a change got no answer. It belongs to the one with the turn.
type outage struct {
	at  time.Time
	err error
}

// claim is change for a claim. While Keep begins a session, as in the moments after the service has
// started, claim waits for it.
func (s *Store) claim(
	ctx context.Context, reads []clientv3.Op, decide func(context.Context, view) (*write, error),
) error {
	limit := time.After(methodTimeout)
	for {
		err := s.change(ctx, reads, decide)
		if !errors.Is(err, ipam.ErrNoSession) || !s.kept.Load() || s.renewal {
			return err
		}
		select {
		case <-time.After(maxPause):
		case <-limit:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// read reads in one transaction, for f.
func (s *Store) read(ctx context.Context, reads []clientv3.Op, f func(*clientv3.TxnResponse) error) error {
	return s.try(ctx, func(ctx context.Context) error {
		resp, err := s.commit(s.client.Txn(ctx).Then(reads...))
		if err != nil {
			return err
		}
		return f(resp)
	})
}

// unchanged is the condition that a key has its last change at a revision; 0: it does not exist.
func unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// absent is the condition that a key does not exist.
func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
