package objects

import (
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// MaxTries bounds how often one request is made.
const MaxTries = 3

// Connect returns a client of the bucket's server, which is not asked anything
// yet, and the connections it uses, for the caller to close. An answer that has
// not begun within answerWithin is an error.
func (p Place) Connect(answerWithin time.Duration) (*minio.Core, *http.Transport, error) {
	transport, err := minio.DefaultTransport(p.Secure)
	if err != nil {
		return nil, nil, err
	}
	transport.ResponseHeaderTimeout = answerWithin
	lookup := minio.BucketLookupAuto
	if p.PathStyle {
		lookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(p.Endpoint, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		}),
		Secure:       p.Secure,
		Region:       p.Region,
		BucketLookup: lookup,
		Transport:    transport,
		MaxRetries:   MaxTries,
	})
	if err != nil {
		return nil, nil, err
	}
	return core, transport, nil
}
