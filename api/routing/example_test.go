package routing_test

import (
	"context"
	"fmt"
	"log"

	"github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/go-cid"
)

// A frontend asked with boxo's client, as any delegated router is.
func Example() {
	ctx, c := context.Background(), cid.MustParse("bafkreick5v2e7bfmkaau7vqpxq2wknsj3vmgaiz5sit22heoekeguth7qa")
	router, err := client.New("http://FRONTEND:3000")
	if err != nil {
		log.Fatal(err)
	}
	records, err := router.FindProviders(ctx, c)
	if err != nil {
		log.Fatal(err)
	}
	defer records.Close()
	for records.Next() {
		if peer, ok := records.Val().Val.(*types.PeerRecord); ok {
			fmt.Println(peer.ID, peer.Protocols)
		}
	}
}
