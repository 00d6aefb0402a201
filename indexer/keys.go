package indexer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/filter"
	"github.com/signpost-index/signpost/store"
	"github.com/signpost-index/signpost/store/keyset"
)

// localKeys is the store as a filter.Source.
type localKeys struct{ *store.Store }

func (k localKeys) OpenKeys(ctx context.Context, follower string) (filter.Opened, error) {
	o, err := k.Store.OpenKeys(ctx, follower)
	return filter.Opened(o), err
}

func (k localKeys) FollowKeys(ctx context.Context, epoch, follower string, from uint64) ([]uint64, time.Duration, error) {
	keys, lease, err := k.Store.FollowKeys(ctx, epoch, follower, from)
	if errors.Is(err, store.ErrKeysGone) {
		err = fmt.Errorf("%w: %w", filter.ErrGone, err)
	}
	return keys, lease, err
}

// withKeys adds the keys of the store to the find API, for frontends with the secret.
func (ix *Indexer) withKeys(h http.Handler) http.Handler {
	token := ix.keysToken()
	if token == "" {
		return h
	}
	return api.Below(filter.Prefix, filter.NewHandler(localKeys{ix.store}, filter.HandlerConfig{Token: token, Logger: ix.log}), h)
}

// keysToken is what frontends with the secret show; "": they get nothing for it.
func (ix *Indexer) keysToken() string {
	if len(ix.cfg.IndexSecret) == 0 || ix.cfg.NoFilter {
		return ""
	}
	return keyset.Token(ix.cfg.IndexSecret)
}
