package snapshot

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// maxTries bounds how often one file is tried.
	maxTries = 6
	// retryMin is the pause after the first failure; they double up to retryMax.
	retryMin = 200 * time.Millisecond
	retryMax = 10 * time.Second
)

// retry repeats what fails as long as again says that this may help.
func retry(ctx context.Context, again func(error) bool, do func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.Multiplier = retryMin, retryMax, 2
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := do()
		if err != nil && (ctx.Err() != nil || !again(err)) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(maxTries), backoff.WithMaxElapsedTime(0))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		return permanent.Unwrap()
	}
	return err
}
