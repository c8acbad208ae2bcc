// Made-up questions and documents to begin with: a town guide, a help desk, an on-call handbook.

export const SAMPLES = [
  {
    name: "Town guide",
    question: "When was the Harrow Bridge opened, and who designed it?",
    documents: [
      {
        id: "guide-12",
        title: "Harrow Bridge",
        text: "The Harrow Bridge crosses the Wend below the old mill. It was designed by the engineer Ada Fenwick and opened to traffic on 4 May 1911. Swallows nest under its arches every spring. The granite came from a quarry at Stowe, nine miles up the valley. Cyclists must dismount on market days.",
      },
      {
        id: "guide-15",
        title: "The ferry",
        text: "Before there was a bridge, a flat-bottomed ferry carried carts across the Wend. It still runs on Sundays in summer, every half hour. Bicycles travel free. Dogs must be kept on a lead.",
      },
      {
        id: "guide-31",
        title: "Ada Fenwick",
        text: "Ada Fenwick was born in the town in 1874 and trained as a draughtswoman. She drew the plans for three bridges, of which the one at Harrow is the longest. Her notebooks are in the county archive. The café next door sells a cake that bears her name.",
      },
      {
        id: "guide-40",
        title: "Parking",
        text: "There are two car parks near the river. The larger one has 120 spaces and costs £3 a day. Coaches should use the lay-by on Mill Lane.",
      },
    ],
  },
  {
    name: "Help desk",
    question: "Can I return opened headphones after three weeks?",
    documents: [
      {
        id: "kb-204",
        title: "Returns and refunds",
        text: "Unopened goods can be returned within 30 days of delivery. Opened headphones and earphones can be returned only when they are faulty, for reasons of hygiene. Refunds reach your account within five working days. Gift cards are never refunded. We are happy to help by telephone from Monday to Friday.",
      },
      {
        id: "kb-087",
        title: "Delivery times",
        text: "Parcels arrive within two to four working days. Islands take a day longer. You will get an e-mail with a tracking number when the parcel leaves our warehouse.",
      },
      {
        id: "kb-311",
        title: "Warranty",
        text: "All headphones carry a warranty of two years against faults. The warranty does not cover worn ear pads or cut cables. To make a claim, send us the order number and a short description of the fault. Our workshop repairs most models within a week.",
      },
    ],
  },
  {
    name: "On-call handbook",
    question: "How do I roll back the payments service?",
    documents: [
      {
        id: "run-3",
        title: "Payments: rollback",
        text: "To roll back the payments service, run `deployctl rollback payments --to previous` from the bastion host. Wait until the health check is green twice in a row. Then write a note in the incident channel. The service was called billing until 2021, and old dashboards still use that name.",
      },
      {
        id: "run-9",
        title: "Payments: alerts",
        text: "The alert “queue age” fires when a payment has waited for more than 90 seconds. Most often a worker has run out of memory. Restart it first and look at the graphs afterwards. Alerts are silenced during the monthly drill.",
      },
      {
        id: "run-14",
        title: "Deployments in general",
        text: "Services are deployed from the main branch every weekday at ten. A rollback never changes the database: migrations must be undone by hand, in reverse order. Friday deployments need a second pair of eyes. The release calendar hangs in the kitchen.",
      },
    ],
  },
];
