package etcdstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-net/lanyard/ipam"
)

// session is the session that a claim belongs to.
type session struct {
	lease  clientv3.LeaseID
	exists clientv3.Cmp // the condition that it has not ended
}

// session returns the session of the host for a claim. kvs is the read of the host's key.
func (s *Store) session(kvs []*mvccpb.KeyValue) (session, error) {
	if err := s.checkHistory(); err != nil {
		return session{}, err
	}
	switch {
	case s.renewing != 0 && len(kvs) == 0:
		return session{s.renewing, absent(s.hostKey())}, nil
	case s.renewing != 0:
		return session{}, &ownError{errors.New("another process keeps the session of this host")}
	case len(kvs) == 0:
		return session{}, &ownError{fmt.Errorf("%w: \"lanyard serve\" keeps it while it runs and etcd answers",
			ipam.ErrNoSession)}
	}
	// The key is created once in a session.
	begun := clientv3.Compare(clientv3.CreateRevision(s.hostKey()), "=", kvs[0].CreateRevision)
	return session{clientv3.LeaseID(kvs[0].Lease), begun}, nil
}

// keepPause is the pause after a session could not be begun or kept.
const keepPause = time.Second

// Keep implements [ipam.Shared].
func (s *Store) Keep(ctx context.Context, log *slog.Logger, renew func(context.Context, ipam.Shared) error) {
	s.kept.Store(true)
	defer s.kept.Store(false)
	failed, next := "", newLeaseID() // the last error that was logged; the etcd lease of the next session
	for ctx.Err() == nil {
		lease, err := s.begin(ctx, next, log, renew)
		if err == nil {
			failed, next = "", newLeaseID()
			err = s.keep(ctx, lease, log, renew)
		}
		if ctx.Err() != nil {
			return
		}
		if err.Error() != failed {
			log.Error("no session for leases: no container gets an address from etcd", "err", err)
		}
		failed = err.Error()
		select {
		case <-ctx.Done():
		case <-time.After(keepPause):
		}
	}
}

// newLeaseID returns an id for an etcd lease. All attempts to begin one session use one id: then they
// leave one lease in the cluster, and the claims of an attempt that failed stay for the next.
func newLeaseID() clientv3.LeaseID { return clientv3.LeaseID(1 + rand.Int64N(math.MaxInt64)) }

// grant creates the etcd lease with an id, if it does not exist. The client's Grant lets the server
// choose the id: each attempt with an unknown end would leave a lease for its time to live.
func (s *Store) grant(ctx context.Context, id clientv3.LeaseID) error {
	r := &pb.LeaseGrantRequest{ID: int64(id), TTL: int64(s.config.ttl().Seconds())}
	return s.try(ctx, func(ctx context.Context) error {
		_, err := clientv3.RetryLeaseClient(s.client).LeaseGrant(ctx, r)
		if err = rpctypes.Error(err); errors.Is(err, rpctypes.ErrLeaseExist) {
			return nil
		}
		return err
	})
}

// begin returns the etcd lease of the host's session. If it has none, begin begins one, with the
// lease next: it renews what the host's containers have before it writes the key that allows other
// claims.
func (s *Store) begin(
	ctx context.Context, next clientv3.LeaseID, log *slog.Logger, renew func(context.Context, ipam.Shared) error,
) (clientv3.LeaseID, error) {
	lease, err := s.resume(ctx)
	if err != nil || lease != clientv3.NoLease {
		return lease, err
	}
	lease = next
	if err := s.grant(ctx, lease); err != nil {
		return lease, err
	}
	alive, stop := context.WithCancel(ctx)
	defer stop()
	if _, err := s.client.KeepAlive(clientv3.WithRequireLeader(alive), lease); err != nil {
		return lease, s.config.explain(err)
	}
	early := *s
	early.renewing, early.renewal = lease, true
	if err := renew(ctx, &early); err != nil {
		return lease, err
	}
	value, err := json.Marshal(hostRow{Name: s.host.Name})
	if err != nil {
		return lease, err
	}
	reads := []clientv3.Op{clientv3.OpGet(s.hostKey())}
	if err := early.change(ctx, reads, func(_ context.Context, v view) (*write, error) {
		if kvs := v.kvs[0]; len(kvs) > 0 && clientv3.LeaseID(kvs[0].Lease) == lease {
			return nil, nil // an attempt with an unknown end
		} else if len(kvs) > 0 {
			return nil, &ownError{errors.New("another process keeps the session of this host")}
		}
		return &write{[]clientv3.Cmp{absent(s.hostKey())},
			[]clientv3.Op{clientv3.OpPut(s.hostKey(), string(value), clientv3.WithLease(lease))}}, nil
	}); err != nil {
		return lease, err
	}
	log.Info("began a session for leases", "etcd", s.config.Endpoints, "ttl", s.config.ttl())
	return lease, nil
}

// resume returns the etcd lease of the session that the host has, as after a restart of the process
// that keeps it; NoLease if it has none.
func (s *Store) resume(ctx context.Context) (lease clientv3.LeaseID, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		resp, err := s.client.Get(ctx, s.hostKey())
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		lease = clientv3.LeaseID(resp.Kvs[0].Lease)
		_, err = s.client.KeepAliveOnce(ctx, lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			lease, err = clientv3.NoLease, nil // it has ended between the two calls
		}
		return err
	})
	return lease, err
}

// keep keeps a session until ctx or the session ends, and renews regularly.
func (s *Store) keep(
	ctx context.Context, lease clientv3.LeaseID, log *slog.Logger, renew func(context.Context, ipam.Shared) error,
) error {
	for {
		alive, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
		answers, err := s.client.KeepAlive(alive, lease)
		if err == nil {
			s.follow(ctx, answers, log, renew)
		}
		stop()
		if ctx.Err() != nil {
			return nil
		}
		// The stream has ended: etcd was out of reach for the time to live, or the lease is gone.
		_, err = s.client.KeepAliveOnce(ctx, lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return errors.New("the session has ended: no keepalive reached the store within its time to live")
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(keepPause):
			}
		}
	}
}

// follow reads the answers to keep-alives until there are no more, and renews regularly.
func (s *Store) follow(
	ctx context.Context, answers <-chan *clientv3.LeaseKeepAliveResponse, log *slog.Logger,
	renew func(context.Context, ipam.Shared) error,
) {
	tick := time.NewTicker(s.config.ttl() / 2)
	defer tick.Stop()
	for {
		select {
		case _, ok := <-answers:
			if !ok {
				return
			}
		case <-s.history.noticed:
			lost, d := s.history.wait()
			log.Error("etcd "+lost+": claiming what this host uses, and waiting for the other hosts", "for", d)
			s.renewNow(ctx, log, renew)
		case <-tick.C:
			s.renewNow(ctx, log, renew)
		}
	}
}

func (s *Store) renewNow(ctx context.Context, log *slog.Logger, renew func(context.Context, ipam.Shared) error) {
	if err := errors.Join(renew(ctx, s.forRenewal()), s.tidy(ctx)); err != nil && ctx.Err() == nil {
		log.Warn("could not renew leases", "err", err)
	}
}

// tidyAtOnce is the number of rows that tidy removes in one transaction: less than half of the
// operations that etcd allows by default.
const tidyAtOnce = 50

// tidy removes rows of quarantined and declined addresses that have run out, in all pools. They
// count as free anyway: it only keeps the cluster's data small.
func (s *Store) tidy(ctx context.Context) error {
	var all []*mvccpb.KeyValue
	if err := s.try(ctx, func(ctx context.Context) error {
		resp, err := s.client.Get(ctx, s.prefix+kindIdle, clientv3.WithPrefix())
		if err == nil {
			all = resp.Kvs
		}
		return err
	}); err != nil {
		return err
	}
	var w write
	flush := func() error {
		defer func() { w = write{} }()
		return s.try(ctx, func(ctx context.Context) error {
			_, err := s.client.Txn(ctx).If(w.conditions...).Then(w.then...).Commit()
			return err
		})
	}
	for _, kv := range all {
		if r, err := decode(kv); err != nil || !r.Over(s.now()) {
			continue
		}
		w.conditions = append(w.conditions, unchanged(string(kv.Key), kv.ModRevision))
		w.then = append(w.then, clientv3.OpDelete(string(kv.Key)))
		if len(w.then) == tidyAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(w.then) == 0 {
		return nil
	}
	return flush()
}

// CheckSession returns nil if the host has a session, and an error that wraps ipam.ErrNoSession if
// it has none.
func (s *Store) CheckSession(ctx context.Context) error {
	return s.try(ctx, func(ctx context.Context) error {
		resp, err := s.client.Get(ctx, s.hostKey())
		if err == nil {
			_, err = s.session(resp.Kvs)
		}
		return err
	})
}

// mineAtOnce is the number of rows that Mine reads in one transaction.
const mineAtOnce = 64

// Mine implements [ipam.Shared].
func (s *Store) Mine(ctx context.Context) (mine map[string][]ipam.Lease, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		mine = map[string][]ipam.Lease{}
		resp, err := s.commit(s.client.Txn(ctx).Then(clientv3.OpGet(s.hostKey())))
		if err != nil {
			return err
		}
		in, err := s.session(viewOf(resp).kvs[0])
		if err != nil {
			return err
		}
		attached, err := s.client.TimeToLive(ctx, in.lease, clientv3.WithAttachedKeys())
		if err != nil {
			return err
		}
		var reads []clientv3.Op
		for _, key := range attached.Keys {
			if strings.HasPrefix(string(key), s.prefix+kindHeld) {
				reads = append(reads, clientv3.OpGet(string(key)))
			}
		}
		for some := range slices.Chunk(reads, mineAtOnce) {
			if err := s.addMine(ctx, some, mine); err != nil {
				return err
			}
		}
		return nil
	})
	return mine, err
}

// addMine adds the leases of reads to mine. One that was released by now is not there.
func (s *Store) addMine(ctx context.Context, reads []clientv3.Op, mine map[string][]ipam.Lease) error {
	resp, err := s.client.Txn(ctx).Then(reads...).Commit()
	if err != nil {
		return err
	}
	for _, kv := range slices.Concat(viewOf(resp).kvs...) {
		r, err := decode(kv)
		if err != nil {
			return &ownError{err}
		}
		mine[string(r.Pool)] = append(mine[string(r.Pool)], r.Lease)
	}
	return nil
}
