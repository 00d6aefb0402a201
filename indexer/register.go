package indexer

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/store"
)

const (
	maxRegisterBytes = 1 << 20
	maxRegisterAddrs = 64
	// registerWindow is how old a request may be, from its sequence number:
	// nanoseconds since 1970.
	registerWindow = 48 * time.Hour
	// registerExpiry is when a provider that registered and never published
	// makes room for others.
	registerExpiry = 30 * 24 * time.Hour
)

// Errors of a register request, with the reference's texts.
var (
	errNotSigned     = errors.New("request not signed by provider")
	errSmallSequence = errors.New("sequence too small")
	errLargeSequence = errors.New("sequence is in the future")
	errNoAddress     = errors.New("missing address")
)

// register takes POST /register: a signed peer record with the addresses of a
// provider.
func (ix *Indexer) register(w http.ResponseWriter, r *http.Request) {
	if !api.Method(w, r, http.MethodPost) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRegisterBytes))
	if err != nil {
		api.Error(w, http.StatusBadRequest, "cannot read register request: "+err.Error())
		return
	}
	rec, err := readRegister(body)
	if err != nil {
		api.Error(w, http.StatusBadRequest, "cannot read register request: "+err.Error())
		return
	}
	now := time.Now()
	if err := ix.checkRegister(rec, now); err != nil {
		api.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	err = ix.store.Register(rec.PeerID, texts(rec.Addrs), rec.Seq, uint64(now.Add(-registerExpiry).UnixNano()))
	switch {
	case errors.Is(err, store.ErrOldSequence):
		api.Error(w, http.StatusBadRequest, store.ErrOldSequence.Error())
	case errors.Is(err, store.ErrInvalid):
		api.Error(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, store.ErrTooMany):
		w.Header().Set("Retry-After", "3600")
		api.Error(w, http.StatusServiceUnavailable, store.ErrTooMany.Error())
	case err != nil:
		ix.log.Error("register request failed", "provider", rec.PeerID, "err", err)
		api.Error(w, http.StatusInternalServerError, "")
	}
}

// readRegister reads the envelope of a peer record that its peer has signed.
func readRegister(body []byte) (*peer.PeerRecord, error) {
	envelope, rec, err := record.ConsumeEnvelope(body, peer.PeerRecordEnvelopeDomain)
	if err != nil {
		return nil, err
	}
	pr, ok := rec.(*peer.PeerRecord)
	if !ok {
		return nil, fmt.Errorf("%T is no peer record", rec)
	}
	if !pr.PeerID.MatchesPublicKey(envelope.PublicKey) {
		return nil, errNotSigned
	}
	return pr, nil
}

// checkRegister judges all of a request but whether it was made before.
func (ix *Indexer) checkRegister(rec *peer.PeerRecord, now time.Time) error {
	switch {
	case rec.Seq < uint64(now.Add(-registerWindow).UnixNano()):
		return errSmallSequence
	case rec.Seq > uint64(now.Add(registerWindow).UnixNano()):
		return errLargeSequence
	case len(rec.Addrs) == 0:
		return errNoAddress
	case len(rec.Addrs) > maxRegisterAddrs:
		return fmt.Errorf("%d addresses, at most %d", len(rec.Addrs), maxRegisterAddrs)
	case !ix.policy.Load().allowed(rec.PeerID):
		return errors.New("peer not allowed by policy")
	case ix.store.Frozen():
		return errors.New("indexer is frozen")
	}
	return nil
}
