// An OPC UA server for the tests, on node-opcua: another code base than the client under test.
// Usage: node server.js '{"port": 4840, "pki": DIR, "certificate": FILE, "key": FILE, "secure": false, "users": {"anna": "pw"}, "tags": 0}'
// Says "ready" on stdout, then obeys one JSON command a line on stdin and answers "ok":
//   {"set": NAME, "values": [..]}          one change for each value
//   {"sweep": X}                           one change of every variable Tag0 ... (there are "tags" of them)
//   {"run": RATE}                          from now on RATE changes a second, of Tag0, Tag1, ... in turn: -1 each, then -2 each, ...
//   {"halt": true}                         no more of them; answers with how many there were
//   {"set": NAME, "status": "BadSensorFailure" | "UncertainLastUsableValue" | "Good"}
//   {"sessions": true}                     answers with [sessions there were, subscriptions there were, subscriptions there are]
const { OPCUAServer, OPCUACertificateManager, Variant, DataType, StatusCodes, VariantArrayType, SecurityPolicy,
        MessageSecurityMode } = require("node-opcua");

const say = (answer) => process.stdout.write(`${answer}\n`);
console.log = console.error;  // what node-opcua tells on its own is no answer

async function main(options) {
  const secure = options.secure;
  const manager = new OPCUACertificateManager({ rootFolder: options.pki, automaticallyAcceptUnknownCertificate: false });
  await manager.initialize();
  const server = new OPCUAServer({
    port: options.port,
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    resourcePath: "/plant",
    serverInfo: { applicationUri: "urn:fedfab:test:server" },
    serverCertificateManager: manager,
    userCertificateManager: manager,
    certificateFile: options.certificate,
    privateKeyFile: options.key,
    securityPolicies: secure ? [SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes256_Sha256_RsaPss] : [SecurityPolicy.None],
    securityModes: secure ? [MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt] : [MessageSecurityMode.None],
    allowAnonymous: !options.users,
    userManager: { isValidUser: (user, password) => Boolean(options.users) && options.users[user] === password },
    serverCapabilities: { maxSessions: 50, minSupportedSampleRate: 0 },  // 0: every change goes out, none is folded
  });
  await server.initialize();

  const space = server.engine.addressSpace;
  const own = space.registerNamespace("urn:fedfab:test:press");
  const press = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Press" });
  const types = {};
  const variables = {};
  function add(name, dataType, value, extra) {
    const node = own.addVariable({ componentOf: press, browseName: name, nodeId: `s=Press.${name}`, dataType,
                                   minimumSamplingInterval: 0, ...extra });
    node.setValueFromSource(new Variant({ dataType, value, arrayType: extra ? VariantArrayType.Array : VariantArrayType.Scalar }));
    types[name] = dataType;
    variables[name] = node;
  }
  add("Temperature", DataType.Double, 20.5);
  add("Count", DataType.Int32, 7);
  add("Running", DataType.Boolean, true);
  add("Program", DataType.String, "A-1");
  add("Zones", DataType.Double, [1.5, 2.5, 3.5], { valueRank: 1 });
  const moment = new Date("2026-01-02T03:04:05.678Z");
  const kinds = { Boolean: true, SByte: -8, Byte: 8, Int16: -16, UInt16: 16, Int32: -32, UInt32: 32, Int64: [0, 64], UInt64: [0, 64],
                  Float: 0.5, Double: -0.5, String: "text", DateTime: moment, LocalizedText: { text: "local" },
                  QualifiedName: { name: "name", namespaceIndex: 2 }, Guid: "72962b91-fa75-4ae6-8d28-b404dc7daf63",
                  ByteString: Buffer.from("bytes"), StatusCode: StatusCodes.BadInternalError };
  for (const [kind, value] of Object.entries(kinds)) add(`A${kind}`, DataType[kind], value);
  for (let i = 0; i < (options.tags || 0); i++) add(`Tag${i}`, DataType.Double, i);

  await server.start();
  say("ready");
  const tick = require("util").promisify(setImmediate);
  let changed = 0, timer = null;
  function run(rate) {
    const started = Date.now() - 1000 * changed / rate;
    timer = setInterval(() => {
      for (const due = Math.floor(rate * (Date.now() - started) / 1000); changed < due; changed++) {
        const value = -1 - Math.floor(changed / options.tags);
        variables[`Tag${changed % options.tags}`].setValueFromSource(new Variant({ dataType: DataType.Double, value }));
      }
    }, 20);
  }
  for await (const line of require("readline").createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    if (command.sessions) {
      const engine = server.engine;
      say(JSON.stringify([engine.cumulatedSessionCount, engine.cumulatedSubscriptionCount, engine.currentSubscriptionCount]));
      continue;
    }
    if (command.sweep) {
      for (let i = 0; i < options.tags; i++)
        variables[`Tag${i}`].setValueFromSource(new Variant({ dataType: DataType.Double, value: command.sweep + i }));
      say("ok");
      continue;
    }
    if (command.run) {
      run(command.run);
      say("ok");
      continue;
    }
    if (command.halt) {
      clearInterval(timer);
      say(changed);
      continue;
    }
    const node = variables[command.set];
    for (const value of command.values || []) {
      node.setValueFromSource(new Variant({ dataType: types[command.set], value }));
      await tick();  // node-opcua looks at a variable once a turn of its loop
    }
    if (command.status) node.setValueFromSource(node.readValue().value, StatusCodes[command.status]);
    say("ok");
  }
  process.exit(0);
}

main(JSON.parse(process.argv[2])).catch((error) => { console.error(error); process.exit(1); });
