package etcdstore

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Member is what one endpoint says of itself.
type Member struct {
	Endpoint string        `json:"endpoint"`
	Version  string        `json:"version,omitempty"`
	Leader   bool          `json:"leader"` // it leads the cluster
	Cluster  string        `json:"cluster,omitempty"`
	Revision int64         `json:"revision,omitzero"`
	RTT      time.Duration `json:"rtt_ns,omitzero"`
	Error    string        `json:"error,omitempty"` // why it cannot be used; all other fields may be empty
}

// Check asks each endpoint for its state, and then writes, reads and removes a key below the prefix.
// Its error says what prevents claims. A cluster of which only some members answer is no error.
func (s *Store) Check(ctx context.Context) (members []Member, err error) {
	clusters := map[string]string{} // an endpoint of each cluster
	for _, e := range s.config.Endpoints {
		m := s.status(ctx, e)
		members = append(members, m)
		if m.Error == "" {
			clusters[m.Cluster] = e
		}
	}
	if len(clusters) > 1 {
		return members, fmt.Errorf("the endpoints are members of %d clusters: list those of one only", len(clusters))
	}
	return members, s.tryWrite(ctx)
}

func (s *Store) status(ctx context.Context, endpoint string) Member {
	m := Member{Endpoint: endpoint}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	began := time.Now()
	st, err := s.client.Status(ctx, endpoint)
	if err != nil {
		m.Error = err.Error()
		if why := s.config.dial(endpoint, dialTimeout); why != nil {
			m.Error = why.Error()
		}
		return m
	}
	m.RTT = time.Since(began)
	m.Version, m.Leader, m.Revision = st.Version, st.Leader == st.Header.MemberId, st.Header.Revision
	m.Cluster = fmt.Sprintf("%x", st.Header.ClusterId)
	switch {
	case st.Leader == 0:
		m.Error = "it knows no leader: the cluster has no majority, or this member is cut off"
	case len(st.Errors) > 0:
		m.Error = fmt.Sprint(st.Errors)
	}
	return m
}

// tryWrite writes a key of this host, reads it and removes it.
func (s *Store) tryWrite(ctx context.Context) error {
	key, value := s.prefix+"check/"+s.host.ID, time.Now().UTC().Format(time.RFC3339Nano)
	return s.try(ctx, func(ctx context.Context) error {
		if _, err := s.client.Put(ctx, key, value); err != nil {
			return err
		}
		if _, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", value)).
			Then(clientv3.OpDelete(key)).Commit(); err != nil {
			return err
		}
		return nil
	})
}
