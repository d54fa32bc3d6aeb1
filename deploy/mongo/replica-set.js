// Makes one replica set of the three members; does nothing when it is one already.
try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") {
    throw error;
  }
  rs.initiate({
    _id: "promo",
    members: [1, 2, 3].map((n) => ({ _id: n, host: `mongo-${n}:27017` })),
  });
}
while (!rs.status().members.some((member) => member.stateStr === "PRIMARY")) {
  sleep(500);
}
