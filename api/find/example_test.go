package find_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/api/find"
)

// Who provides a CID, asked of a frontend.
func ExampleClient_Find() {
	ctx, c := context.Background(), cid.MustParse("bafkreick5v2e7bfmkaau7vqpxq2wknsj3vmgaiz5sit22heoekeguth7qa")
	client, err := find.NewClient("http://FRONTEND:3000", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for result, err := range client.Find(ctx, c.Hash()) {
		var partial *find.PartialError
		switch {
		case errors.As(err, &partial):
			fmt.Println("there may be more; no answer from", partial.Missing)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println(result.Provider.ID, result.Provider.Addrs)
		}
	}
}
